// SPDX-License-Identifier: Apache-2.0

import { formatIp, type Ip } from '#base'
import { ENODEV, ENOENT } from '#libc'
import {
  attributes,
  bodyEncoder,
  bytes,
  ip,
  type Message,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_REPLACE,
  type Request,
  struct,
  u8,
} from '#netlink'
import { familyOf } from './address.ts'
import { protocols } from './route.ts'

const RTM_NEWNEIGH = 28
const RTM_DELNEIGH = 29
const RTM_GETNEIGH = 30
// linux/neighbour.h
export const NUD_PERMANENT = 0x80
export const NTF_PROXY = 0x08

/** linux/neighbour.h, struct ndmsg. */
const header = struct([
  ['family', 'u8'],
  ['pad1', 'pad8'],
  ['pad2', 'pad16'],
  ['index', 's32'],
  ['state', 'u16'],
  ['flags', 'u8'],
  ['type', 'u8'],
])

/** linux/neighbour.h, NDA_*. */
const neighbourAttributes = attributes({ address: [1, ip], mac: [2, bytes], protocol: [12, u8] })
const bodyOf = bodyEncoder(header, neighbourAttributes)

/** A neighbour entry: where an address is on a link, or, as a proxy, that this machine answers for it there. */
export type Neighbour = {
  index: number
  address: Ip
  mac?: Uint8Array
  state: number
  flags: number
  protocol?: number
}

const describe = (address: Ip, index: number) => `${formatIp(address)} on link ${index}`

/** A permanent entry: the address is at this MAC, nobody is asked. */
export const addNeighbour = (neighbour: { index: number; address: Ip; mac: Uint8Array }): Request => ({
  type: RTM_NEWNEIGH,
  flags: NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
  body: bodyOf(
    { family: familyOf(neighbour.address), index: neighbour.index, state: NUD_PERMANENT },
    { address: neighbour.address, mac: neighbour.mac },
  ),
  get about() {
    return `add neighbour ${describe(neighbour.address, neighbour.index)}`
  },
})

/** Makes this machine answer ARP or neighbour discovery for the address on the link. Idempotent. */
export const addProxy = (proxy: { index: number; address: Ip }): Request => ({
  type: RTM_NEWNEIGH,
  flags: NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
  body: bodyOf(
    { family: familyOf(proxy.address), index: proxy.index, state: NUD_PERMANENT, flags: NTF_PROXY },
    { address: proxy.address, protocol: protocols.mooring },
  ),
  get about() {
    return `add proxy neighbour ${describe(proxy.address, proxy.index)}`
  },
})

/** Ends what `addProxy` began. Absence is success. */
export const deleteProxy = (proxy: { index: number; address: Ip }): Request => ({
  type: RTM_DELNEIGH,
  flags: NLM_F_ACK,
  body: bodyOf({ family: familyOf(proxy.address), index: proxy.index, flags: NTF_PROXY }, { address: proxy.address }),
  about: `remove proxy neighbour ${describe(proxy.address, proxy.index)}`,
  tolerate: [ENOENT, ENODEV],
})

/** Asks for one entry, or with `proxy` for a proxy entry; absence is an empty reply. */
export const getNeighbour = (
  neighbour: { index: number; address: Ip },
  { proxy = false }: { proxy?: boolean } = {},
): Request => ({
  type: RTM_GETNEIGH,
  flags: 0,
  asks: true,
  body: bodyOf(
    {
      family: familyOf(neighbour.address),
      index: neighbour.index,
      ...(proxy ? { flags: NTF_PROXY } : {}),
    },
    { address: neighbour.address },
  ),
  about: `find ${proxy ? 'proxy ' : ''}neighbour ${describe(neighbour.address, neighbour.index)}`,
  tolerate: [ENOENT, ENODEV],
})

/** Asks for all proxy entries of a family. */
export const dumpProxies = (family: number): Request => ({
  type: RTM_GETNEIGH,
  flags: NLM_F_DUMP,
  body: header.encode({ family, flags: NTF_PROXY }),
  about: 'list proxy neighbours',
})

/** @param message an RTM_NEWNEIGH */
export function decodeNeighbour(message: Message): Neighbour {
  const { index = 0, state = 0, flags = 0 } = header.decode(message.body)
  const { address, mac, protocol } = neighbourAttributes.decode(message.body.subarray(header.size))
  return {
    index,
    state,
    flags,
    address: address ?? new Uint8Array(4),
    ...(mac === undefined ? {} : { mac }),
    ...(protocol === undefined ? {} : { protocol }),
  }
}
