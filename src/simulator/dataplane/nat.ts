// SPDX-License-Identifier: Apache-2.0

/** A router's address translation: floating IPs both ways, and its own address for everybody else. */
import { parseIp } from '#base'
import {
  addChain,
  addElement,
  addRule,
  addSet,
  addTable,
  type Chain,
  type Change,
  compare,
  deleteTable,
  give,
  loadConnection,
  loadField,
  loadMeta,
  loadValue,
  lookUp,
  mask,
  type NamedSet,
  type Table,
  translate,
} from '#nftables'
import type { RouterPolicy } from './wire.ts'

const table: Table = { family: 'ip', name: 'mooring_router' }
const inward: NamedSet = { table, name: 'inward', key: ['ipv4_addr'], data: ['ipv4_addr'] }
const outward: NamedSet = { table, name: 'outward', key: ['ipv4_addr'], data: ['ipv4_addr'] }
const prerouting: Chain = {
  table,
  name: 'prerouting',
  base: { type: 'nat', hook: 'prerouting', priority: -100, policy: 'accept' },
}
const postrouting: Chain = {
  table,
  name: 'postrouting',
  base: { type: 'nat', hook: 'postrouting', priority: 100, policy: 'accept' },
}

const REGISTER = 1
/** IPS_DST_NAT (linux/netfilter/nf_conntrack_common.h), in host order. */
const DST_NAT = Uint8Array.of(0x20, 0, 0, 0)

const ifname = (name: string): Uint8Array => {
  const bytes = new Uint8Array(16)
  bytes.set(new TextEncoder().encode(name))
  return bytes
}

/** The table from scratch, in one batch. */
export function natChanges({ outside, floating }: RouterPolicy): Change[] {
  const empty = [addTable(table), deleteTable(table)]
  if (outside === undefined) return empty
  const v4 = floating.filter(pair => !pair.inside.includes(':'))
  const device = ifname(outside.device)
  const own = loadValue(REGISTER, parseIp(outside.address))
  return [
    ...empty,
    addTable(table),
    addSet(inward),
    addSet(outward),
    addChain(prerouting),
    addChain(postrouting),
    addRule(prerouting, {
      comment: 'floating IP',
      expressions: [
        loadField('ip daddr', REGISTER),
        lookUp(REGISTER, inward.name, REGISTER),
        translate('dnat', 'ip', { address: REGISTER }),
      ],
    }),
    addRule(postrouting, {
      comment: 'address with a floating IP',
      expressions: [
        loadMeta('oifname', REGISTER),
        compare(REGISTER, '==', device),
        loadField('ip saddr', REGISTER),
        lookUp(REGISTER, outward.name, REGISTER),
        translate('snat', 'ip', { address: REGISTER }),
      ],
    }),
    addRule(postrouting, {
      comment: 'from inside to a floating IP: the answer has to come back here',
      expressions: [
        loadMeta('iifname', REGISTER),
        compare(REGISTER, '!=', device),
        loadConnection('status', REGISTER),
        mask(REGISTER, DST_NAT),
        compare(REGISTER, '==', DST_NAT),
        own,
        translate('snat', 'ip', { address: REGISTER }),
      ],
    }),
    ...(outside.snat
      ? [
          addRule(postrouting, {
            comment: 'everybody else',
            expressions: [
              loadMeta('oifname', REGISTER),
              compare(REGISTER, '==', device),
              own,
              translate('snat', 'ip', { address: REGISTER }),
            ],
          }),
        ]
      : [addRule(postrouting, { expressions: [give('accept')] })]),
    ...v4.map(pair => addElement(inward, { key: [parseIp(pair.outside)], value: [parseIp(pair.inside)] })),
    ...v4.map(pair => addElement(outward, { key: [parseIp(pair.inside)], value: [parseIp(pair.outside)] })),
  ]
}
