// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deadlineIn } from '#base'
import type { Call, JsonObject, Result } from '#cni'
import type { World } from '../../world.ts'
import { staticIpam } from './static.ts'

const callOf = (config: JsonObject, more: Partial<Call> = {}): Call => ({
  command: 'ADD',
  containerId: 'c1',
  ifName: 'eth0',
  netns: '',
  netnsFd: undefined,
  args: '',
  path: [],
  stdin: new Uint8Array(),
  config,
  network: 'net',
  cniVersion: '1.1.0',
  prevResult: undefined,
  env: {},
  deadline: deadlineIn(1000),
  signal: new AbortController().signal,
  ...more,
})
/** It touches nothing. */
const world = {} as World
const add = (config: JsonObject, more: Partial<Call> = {}) => staticIpam.add(callOf(config, more), world)
const check = (config: JsonObject, prevResult: Result | undefined) =>
  staticIpam.check(callOf(config, { prevResult }), world)
const addresses = [{ address: '10.1.2.3/24', gateway: '10.1.2.1' }, { address: 'FD00:0::5/64' }]

test('ADD echoes addresses, routes and dns, host part kept (ST-01, ST-02, ST-07, RES-17)', async () => {
  const routes = [{ dst: '0.0.0.0/0' }, { dst: '10.9.0.0/16', gw: '10.1.2.9', mtu: 1400, table: 0 }]
  const dns = { nameservers: ['10.0.0.53'], domain: 'a.example', search: ['b.example'], options: ['ndots:5'] }
  assert.deepEqual(await add({ ipam: { addresses, routes, dns } }), {
    ips: [{ address: '10.1.2.3/24', gateway: '10.1.2.1' }, { address: 'fd00::5/64' }],
    routes,
    dns,
  })
  assert.deepEqual(await add({ ipam: { addresses: [{ address: '::ffff:10.1.2.3/120', gateway: '' }] } }), {
    ips: [{ address: '10.1.2.3/24' }],
  })
  assert.deepEqual(await add({ ipam: {} }), { ips: [] })
})

test('ADD refuses what is no address, in the words of upstream (ST-02, ST-03, ST-04, ST-05, ROB-10)', async () => {
  const cases: [JsonObject, Partial<Call>, number, string][] = [
    [{}, {}, 7, "IPAM config missing 'ipam' key"],
    [{ ipam: null }, {}, 7, "IPAM config missing 'ipam' key"],
    ...['10.0.0.1', 'x', '10.0.0.1/33', '010.0.0.1/8', 'fe80::1%eth0/64', ''].map(
      (address): [JsonObject, Partial<Call>, number, string] => [
        { ipam: { addresses: [{ address }] } },
        {},
        7,
        `the 'address' field is expected to be in CIDR notation, got: '${address}'`,
      ],
    ),
    [{ ipam: {} }, { args: 'IP=10.0.0.1' }, 4, "the 'ip' field is expected to be in CIDR notation, got: '10.0.0.1'"],
    [{ ipam: { addresses } }, { args: 'GATEWAY=x' }, 4, 'invalid gateway address: x'],
    [{ ipam: { addresses: [{ address: '10.0.0.1/8', gateway: 'y' }] } }, {}, 7, 'invalid gateway address: y'],
    [{ ipam: {} }, { args: 'FOO=1' }, 4, 'CNI_ARGS: unknown args ["FOO=1"]'],
    ...[{ args: { cni: { ips: ['10.0.0.1'] } } }, { runtimeConfig: { ips: ['10.0.0.1'] } }].map(
      (more): [JsonObject, Partial<Call>, number, string] => [
        { ipam: {}, ...more },
        {},
        7,
        "an entry in the 'ips' field is NOT in CIDR notation, got: '10.0.0.1'",
      ],
    ),
  ]
  for (const [config, more, code, message] of cases) await assert.rejects(add(config, more), { code, message })
  await assert.rejects(add({ ipam: { addresses: [{ address: 7 }] } }), {
    code: 7,
    message: /ipam\.addresses\[0\]\.address/,
  })
  await assert.rejects(add({ ipam: { addresses, routes: [{ dst: 'x' }] } }), { code: 7, message: /routes\[0\]\.dst/ })
})

test('CNI_ARGS adds addresses, and gateways to the networks that they are in (ST-03, ENV-24, ENV-25)', async () => {
  const args = 'IgnoreUnknown=1;K8S_POD_NAME=p;IP=10.1.3.4/24, fd01::7/64;GATEWAY=10.1.3.1, fd01::1,10.1.2.254'
  assert.deepEqual((await add({ ipam: { addresses } }, { args })).ips, [
    { address: '10.1.2.3/24', gateway: '10.1.2.254' },
    { address: 'fd00::5/64' },
    { address: '10.1.3.4/24', gateway: '10.1.3.1' },
    { address: 'fd01::7/64', gateway: 'fd01::1' },
  ])
})

test('args.cni.ips stand for configured ones, runtimeConfig.ips for both, with the gateway of their network (ST-04, ST-09)', async () => {
  const ipam = { addresses }
  const args = { cni: { ips: ['10.1.2.8/24', '10.7.0.8/24'] } }
  const runtimeConfig = { ips: ['10.1.2.9/24', 'fd00::9/64'] }
  const env = { args: 'IP=10.1.4.4/24;GATEWAY=10.7.0.1' }
  assert.deepEqual((await add({ ipam, args }, env)).ips, [
    { address: '10.1.2.8/24', gateway: '10.1.2.1' },
    { address: '10.7.0.8/24', gateway: '10.7.0.1' },
  ])
  assert.deepEqual((await add({ ipam, args, runtimeConfig }, env)).ips, [
    { address: '10.1.2.9/24', gateway: '10.1.2.1' },
    { address: 'fd00::9/64' },
  ])
  assert.deepEqual((await add({ ipam, args: { cni: { ips: [] } }, runtimeConfig: { ips: [] } })).ips?.length, 2)
})

test('an address that is named twice is one', async () => {
  const { ips } = await add({ ipam: { addresses } }, { args: 'IP=10.1.2.3/24' })
  assert.equal(ips?.length, 2)
})

test('old versions have room for one address of a family (ST-06)', async () => {
  const two = { ipam: { addresses: [...addresses, { address: '10.1.2.4/24' }] } }
  const message = 'CNI version 0.2.0 does not support more than 1 address per family'
  await assert.rejects(add(two, { cniVersion: '0.2.0' }), { code: 7, message })
  assert.equal((await add({ ipam: { addresses } }, { cniVersion: '0.2.0' })).ips?.length, 2)
  assert.equal((await add(two, { cniVersion: '0.3.0' })).ips?.length, 3)
})

test('CHECK compares address, length and gateway with prevResult (ST-08, CHK-01)', async () => {
  const config = { ipam: { addresses } }
  const { ips = [] } = await add(config)
  await check(config, { ips: [...ips, { address: '192.0.2.1/24' }] })
  await assert.rejects(check(config, undefined), { code: 7, message: 'Required prevResult missing' })
  const others = [
    { address: '10.1.2.4/24' },
    { address: '10.1.2.3/16', gateway: '10.1.2.1' },
    { address: '10.1.2.3/24' },
  ]
  for (const other of others)
    await assert.rejects(check(config, { ips: [other, ips[1]!] }), {
      code: 103,
      message: 'static: Failed to match addr 10.1.2.3/24 on interface eth0',
    })
})

test('DEL and GC have nothing to do, whatever the configuration; STATUS reads it (ST-08, DEL-08)', async () => {
  for (const config of [{}, { ipam: 'broken' }, { ipam: { addresses: 5 } }]) {
    await staticIpam.del(callOf(config), world)
    await staticIpam.gc(callOf(config), world, [])
    await assert.rejects(staticIpam.status(callOf(config), world), { code: 7 })
  }
  await staticIpam.status(callOf({ ipam: { addresses } }), world)
  await staticIpam.status(callOf({ ipam: {} }), world)
})
