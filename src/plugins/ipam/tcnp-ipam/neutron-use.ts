// SPDX-License-Identifier: Apache-2.0

import { hostname } from 'node:os'
import { decode, type JsonObject, object, optional, string } from '#cni'
import { parseConfig } from './config.ts'
import type { OwnerMark } from './separate/owner-mark.ts'
import type { CloudReference } from './sessions.ts'

/** What a plugin's configuration says of Neutron to one who only looks: the cloud, and where the node is in it. */
export type NeutronUse = {
  readonly cloud: CloudReference
  readonly hostInterface: string | undefined
  readonly hostPort: string | undefined
  /** Whose the ports are that are made for it. */
  readonly owner: OwnerMark
}

const typed = object({ ipam: optional(object({ type: optional(string, '') })) })

const TYPE = /^(mooring-)?(tcnp-ipam|neutron)$/

/** @returns undefined where another plugin gives the addresses @throws {CniError} 7 where a key is wrong */
export function neutronUseOf(config: JsonObject): NeutronUse | undefined {
  if (!TYPE.test(decode(typed, config).ipam?.type ?? '')) return undefined
  const { cloud, neutronConf } = parseConfig(config)
  const { hostInterface, hostPort, cluster, node = hostname() } = neutronConf
  return { cloud, hostInterface, hostPort, owner: { cluster, node } }
}
