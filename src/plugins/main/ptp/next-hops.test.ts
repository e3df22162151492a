// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatIp, formatPrefix, parseIp, parsePrefix } from '#base'
import type { NextHop, PodRoute } from '#host'
import { isWithin, networkRoutes, nextHopsOf, readIps } from './next-hops.ts'

const ip = (address: string, gateway: string) => ({ address, gateway })
const shownHop = ({ address, route, onNode }: NextHop) =>
  `${formatIp(address)} from ${formatIp(route!.source!)}${onNode === undefined ? '' : ` on node /${onNode.length}`}`
const shownRoute = ({ destination, gateway, preferredSource }: PodRoute) =>
  `${formatPrefix(destination)} via ${formatIp(gateway!)} src ${formatIp(preferredSource!)}`
const via = (gateway?: string): PodRoute => ({
  destination: parsePrefix('10.1.0.0/16'),
  ...(gateway === undefined ? {} : { gateway: parseIp(gateway) }),
})

test('readIps() refuses an address that the pod could not leave (PTP-05)', () => {
  for (const [bad, message] of [
    [{ address: '10.6.0.2/24' }, /10\.6\.0\.2\/24 without a gateway$/],
    [ip('10.6.0.2/24', 'fd00::1'), /gateway fd00::1 for 10\.6\.0\.2\/24$/],
    [ip('fd00::2/64', 'fd00::2'), /fd00::2\/64 with itself as gateway$/],
  ] as const)
    assert.throws(() => readIps([ip('10.5.0.2/24', '10.5.0.1'), bad]), { code: 7, message })
})

test('nextHopsOf() has each gateway once on the node, and others of the networks that routes name in the pod alone', () => {
  const ips = readIps([ip('10.6.0.2/24', '10.6.0.1'), ip('10.6.0.3/24', '10.6.0.1'), ip('fd00:6::2/64', 'fd00:6::1')])
  const routes = [via('10.6.0.254'), via('10.6.0.254'), via('10.6.0.1'), via('10.99.0.1'), via()]
  assert.deepEqual(nextHopsOf(ips, routes).map(shownHop), [
    '10.6.0.1 from 10.6.0.2 on node /32',
    'fd00:6::1 from fd00:6::2 on node /128',
    '10.6.0.254 from 10.6.0.2',
  ])
})

test('networkRoutes() leads to each network by its gateway once; one of a single address has none', () => {
  const ips = readIps([
    ...[ip('10.6.0.2/24', '10.6.0.1'), ip('10.6.0.3/24', '10.6.0.1'), ip('10.7.0.2/32', '10.6.0.1')],
    ip('fd00:6::2/64', 'fd00:6::1'),
  ])
  assert.deepEqual(networkRoutes(ips).map(shownRoute), [
    '10.6.0.0/24 via 10.6.0.1 src 10.6.0.2',
    'fd00:6::/64 via fd00:6::1 src fd00:6::2',
  ])
})

test('isWithin() leaves routes by gateways that this interface cannot reach to others', () => {
  const ips = readIps([ip('10.6.0.2/24', '192.0.2.1')])
  const gateways = ['10.6.0.9', '192.0.2.1', undefined, '192.0.2.2', 'fd00::1']
  assert.deepEqual(
    gateways.map(gateway => isWithin(via(gateway), ips)),
    [true, true, true, false, false],
  )
})
