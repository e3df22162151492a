// SPDX-License-Identifier: Apache-2.0

// What the tests of mode separate share.

import type { TestContext } from 'node:test'
import { type CloudSession, cloudFromConf, openCloud, type Port } from '#openstack'
import { type IpamConfig, limits, setUp as setUpCloud } from './cloud.ts'

/** `device_owner` of ports that Mooring makes. */
export const OWNER = 'mooring:separate'

/** A node whose pods have a port each, and a client of its cloud. */
export async function setUp(t: TestContext, longLived = true, neutronConf: object = {}) {
  const set = await setUpCloud(t, longLived, { mode: 'separate', node: 'worker-1', ...neutronConf })
  const cloud = sessionOf(t, set.ipam)
  const ports = () => cloud.neutron.ports.list({ device_owner: OWNER }, limits())
  return { ...set, cloud, ports }
}

export function sessionOf(t: TestContext, ipam: IpamConfig): CloudSession {
  const cloud = openCloud(cloudFromConf(ipam.openstackConf))
  t.after(() => cloud.close())
  return cloud
}

/** In order. */
export const addressesOf = (ports: readonly Port[]) =>
  ports.flatMap(each => each.fixed_ips.map(ip => ip.ip_address)).sort()
