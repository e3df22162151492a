// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatMac } from '#base'
import { CniError, type JsonObject } from '#cni'
import { parseConfig } from './config.ts'

const parse = (config: JsonObject, args = '') => parseConfig(config, { args })

test('parseConfig() fills in what upstream does, and a default gateway is a gateway', () => {
  const { bridge, mtu, vlans, layer3, isGateway, mac } = parse({})
  assert.deepEqual(
    { bridge, mtu, vlans, layer3, isGateway, mac },
    {
      ...{ bridge: 'cni0', mtu: 0, vlans: [], layer3: false, isGateway: false, mac: undefined },
    },
  )
  assert.equal(parse({ isDefaultGateway: true }).isGateway, true)
  assert.equal(parse({ ipam: { type: 'static' } }).layer3, true)
})

test('parseConfig() makes ranges of VLANs, each once, and what is untagged is not tagged as well', () => {
  const text = (config: JsonObject) =>
    parse(config)
      .vlans.map(({ from, to, pvid }) => `${from === to ? from : `${from}-${to}`}${pvid ? ' untagged' : ''}`)
      .join(', ')
  assert.equal(text({ vlan: 100 }), '100 untagged')
  assert.equal(text({ vlanTrunk: [] }), '')
  assert.equal(
    text({ vlanTrunk: [{ id: 7 }, { minID: 9, maxID: 12 }, { minID: 11, maxID: 14, id: 8 }] }),
    '1 untagged, 7-14',
  )
  assert.equal(text({ vlan: 11, vlanTrunk: [{ minID: 10, maxID: 12 }] }), '11 untagged, 10, 12')
  assert.equal(text({ vlanTrunk: [{ minID: 1, maxID: 4094 }] }), '1 untagged, 2-4094')
})

test('parseConfig() takes the MAC of whoever is nearest to the pod', () => {
  const mac = (config: JsonObject, args?: string) => formatMac(parse(config, args).mac!)
  const config = { mac: '02:00:00:00:00:01', args: { cni: { mac: '02:00:00:00:00:03' } } }
  assert.equal(
    mac({ ...config, runtimeConfig: { mac: '02-00-00-00-00-04' } }, 'MAC=02:00:00:00:00:02'),
    '02:00:00:00:00:04',
  )
  assert.equal(mac(config, 'MAC=02:00:00:00:00:02'), '02:00:00:00:00:03')
  assert.equal(mac({ mac: config.mac }, 'MAC=02:00:00:00:00:02'), '02:00:00:00:00:02')
  assert.equal(mac({ mac: config.mac }), config.mac)
})

test('parseConfig() refuses what no link can be, with code 7', () => {
  for (const config of [
    { bridge: '' },
    { bridge: 'sixteen-bytes-xy' },
    { bridge: 'a/b' },
    { mac: '00:00:00:00:00:00' },
    { bridge: 'eleven-byte', vlan: 1000, isGateway: true },
  ])
    assert.throws(
      () => parse(config),
      (error: unknown) => error instanceof CniError && error.code === 7,
      JSON.stringify(config),
    )
  assert.equal(parse({ bridge: 'eleven-byte', vlan: 1000 }).bridge, 'eleven-byte')
})
