// SPDX-License-Identifier: Apache-2.0

import { formatPrefix, type Ip, isV4, type Prefix } from '#base'
import { EADDRNOTAVAIL, ENODEV } from '#libc'
import {
  attributes,
  bodyEncoder,
  ip,
  type Message,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  type Request,
  string,
  struct,
  u32,
  type Values,
} from '#netlink'

const RTM_NEWADDR = 20
const RTM_DELADDR = 21
const RTM_GETADDR = 22
export const AF_INET = 2
export const AF_INET6 = 10
/** RTMGRP_IPV6_IFADDR: notifications of every change to an IPv6 address. */
export const RTM_GROUP_IPV6_ADDRESS = 0x100
// linux/if_addr.h
export const IFA_F_SECONDARY = 0x01
export const IFA_F_NODAD = 0x02
export const IFA_F_DADFAILED = 0x08
export const IFA_F_DEPRECATED = 0x20
export const IFA_F_TENTATIVE = 0x40
export const IFA_F_PERMANENT = 0x80
export const IFA_F_NOPREFIXROUTE = 0x200
/** linux/rtnetlink.h, enum rt_scope_t. */
export const scopes = Object.freeze({ universe: 0, site: 200, link: 253, host: 254, nowhere: 255 } as const)

/** linux/if_addr.h, struct ifaddrmsg. */
const header = struct([
  ['family', 'u8'],
  ['prefixLength', 'u8'],
  ['flags', 'u8'],
  ['scope', 'u8'],
  ['index', 'u32'],
])

/** linux/if_addr.h, struct ifa_cacheinfo: seconds that are left, and when that was so. */
const cacheInfo = struct([
  ['preferredSeconds', 'u32'],
  ['validSeconds', 'u32'],
  ['created', 'u32'],
  ['changed', 'u32'],
])
const FOREVER = 0xffffffff

/** linux/if_addr.h, IFA_*. */
const table = {
  address: [1, ip],
  local: [2, ip],
  label: [3, string(16)],
  broadcast: [4, ip],
  cacheInfo: [6, cacheInfo],
  flags: [8, u32],
} as const
const addressAttributes = attributes(table)
const bodyOf = bodyEncoder(header, addressAttributes)

/** An address of a link as the kernel reports it. `flags` are IFA_F_*. */
export type Address = { index: number; prefix: Prefix; scope: number; flags: number } & Pick<
  Values<typeof table>,
  'label' | 'broadcast'
> &
  Lifetime
/** How long the link keeps an address, and how long new connections may come from it; left out: for ever. */
type Lifetime = { validSeconds?: number; preferredSeconds?: number }

export const familyOf = (address: Ip): number => (isV4(address) ? AF_INET : AF_INET6)

type NewAddress = { index: number; prefix: Prefix; scope?: number; flags?: number; broadcast?: Ip }

function encode({ index, prefix, scope, flags, broadcast }: NewAddress): Uint8Array {
  return bodyOf(
    {
      family: familyOf(prefix.ip),
      prefixLength: prefix.length,
      flags: (flags ?? 0) & 0xff,
      scope: scope ?? scopes.universe,
      index,
    },
    {
      local: prefix.ip,
      address: prefix.ip,
      ...(broadcast === undefined ? {} : { broadcast }),
      // The header's field has room for the old flags only.
      ...(flags !== undefined && flags > 0xff ? { flags } : {}),
    },
  )
}

/** Gives a link an address. EEXIST where it has it, unless `replace`. */
export function addAddress(address: NewAddress, options: { replace?: boolean } = {}): Request {
  return {
    type: RTM_NEWADDR,
    flags: NLM_F_ACK | NLM_F_CREATE | (options.replace === true ? NLM_F_REPLACE : NLM_F_EXCL),
    body: encode(address),
    get about() {
      return `add address ${formatPrefix(address.prefix)} to link ${address.index}`
    },
  }
}

/** Takes an address from a link. Absence is success. */
export function deleteAddress(address: NewAddress): Request {
  return {
    type: RTM_DELADDR,
    flags: NLM_F_ACK,
    body: encode(address),
    about: `remove address ${formatPrefix(address.prefix)} from link ${address.index}`,
    tolerate: [EADDRNOTAVAIL, ENODEV],
  }
}

/** Asks for the addresses of one link, or of all; of one family, or of both. */
export const dumpAddresses = (index = 0, family = 0): Request => ({
  type: RTM_GETADDR,
  flags: NLM_F_DUMP,
  body: header.encode({ index, family }),
  about: index === 0 ? 'list addresses' : `list addresses of link ${index}`,
})

/** @param message an RTM_NEWADDR */
export function decodeAddress(message: Message): Address {
  const { prefixLength = 0, flags = 0, scope = 0, index = 0 } = header.decode(message.body)
  const values = addressAttributes.decode(message.body.subarray(header.size))
  // On a point-to-point address IFA_ADDRESS is the peer; IPv6 has no IFA_LOCAL otherwise.
  const own = values.local ?? values.address ?? new Uint8Array(4)
  return {
    index,
    scope,
    prefix: { ip: own, length: prefixLength },
    flags: values.flags ?? flags,
    ...(values.label === undefined ? {} : { label: values.label }),
    ...(values.broadcast === undefined ? {} : { broadcast: values.broadcast }),
    ...lifetimeOf(values.cacheInfo),
  }
}

const lifetimeOf = ({ validSeconds = FOREVER, preferredSeconds = FOREVER } = {}): Lifetime => ({
  ...(validSeconds === FOREVER ? {} : { validSeconds }),
  ...(preferredSeconds === FOREVER ? {} : { preferredSeconds }),
})
