// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatRangeSet } from '#allocator'
import { deadlineIn } from '#base'
import type { Call, JsonObject } from '#cni'
import { checkConfig, directoryOf, readConfig } from './config.ts'

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

test('readConfig() orders sets: runtime, single range, ranges (HL-01, HL-03)', () => {
  const { sets } = readConfig(
    callOf({
      ipam: { subnet: '10.1.0.0/24', ranges: [[{ subnet: '10.2.0.0/24' }]] },
      runtimeConfig: { IPRanges: [[{ subnet: '10.3.0.0/24', rangeEnd: '10.3.0.9' }]] },
    }),
  )
  assert.deepEqual(sets.map(formatRangeSet), ['10.3.0.1-10.3.0.9', '10.1.0.1-10.1.0.254', '10.2.0.1-10.2.0.254'])
})

test('readConfig() takes wanted addresses from three sources, each once (HL-21)', () => {
  const { requested } = readConfig(
    callOf(
      {
        ipam: { subnet: '10.1.0.0/24' },
        args: { cni: { ips: ['10.1.0.8/24', 'FD00::0:8'] } },
        runtimeConfig: { ips: ['10.1.0.7', '::ffff:10.1.0.9'] },
      },
      { args: 'IgnoreUnknown=1;K8S_POD_NAME=p;IP=10.1.0.7/24' },
    ),
  )
  assert.deepEqual(requested, ['10.1.0.7', '10.1.0.8', 'fd00::8', '10.1.0.9'])
})

test('readConfig() reads routes whole and names a bad one', () => {
  const routes = [{ dst: '0.0.0.0/0', gw: '10.1.0.1', mtu: 1400, table: 7 }]
  assert.deepEqual(readConfig(callOf({ ipam: { subnet: '10.1.0.0/24', routes } })).routes, routes)
  assert.throws(() => readConfig(callOf({ ipam: { subnet: '10.1.0.0/24', routes: [{ dst: 'x' }] } })), {
    code: 7,
    message: /routes\[0\]\.dst/,
  })
})

test('readConfig() wants a range, checkConfig() does not', () => {
  const call = callOf({ ipam: {} }, { args: 'FOO' })
  assert.throws(() => readConfig({ ...call, args: '' }), { code: 7, message: 'no IP ranges specified' })
  assert.deepEqual(checkConfig(call).sets, [])
  assert.throws(() => checkConfig(callOf({ IPAM: null })), { code: 7, message: "IPAM config missing 'ipam' key" })
})

test('directoryOf() needs nothing but dataDir (HL-29)', () => {
  const of = (ipam: JsonObject[string]) => directoryOf(callOf({ ipam }))
  assert.equal(of({ dataDir: '/run/x/', subnet: 7 }), '/run/x/net')
  for (const ipam of [{}, null, 'broken', [], { dataDir: '' }]) assert.equal(of(ipam), '/var/lib/cni/networks/net')
  assert.equal(directoryOf(callOf({})), '/var/lib/cni/networks/net')
  assert.throws(() => of({ dataDir: 'x/y' }), { code: 7, message: /"x\/y": it is not an absolute path/ })
  assert.throws(() => of({ DataDir: 7 }), { code: 7, message: /dataDir/ })
})
