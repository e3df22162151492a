// SPDX-License-Identifier: Apache-2.0

import { formatPrefix } from '#base'
import { EEXIST } from '#libc'
import {
  type Codec,
  concat,
  encodeAttribute,
  type Message,
  NLM_F_ACK,
  NLM_F_CREATE,
  type Request,
  walk,
} from '#netlink'
import { AF_INET, decodeAddress, IFA_F_PERMANENT } from './address.ts'
import { decodeRoute, describeRoute, protocols } from './route.ts'

/**
 * An address or a route as the kernel told it, to be given back to it word for word: `ip route save` and `restore` do the
 * same. So also what no table of ours names survives (peer, label, metrics, lifetimes). Only the link is another number.
 */
export type Saved = { readonly text: string; readonly message: string }

const RTM_NEWADDR = 20
const RTM_NEWROUTE = 24
const ADDRESS_HEADER = 8
const ROUTE_HEADER = 12
const IFA_CACHEINFO = 6
const RTA_OIF = 4
const RTA_MULTIPATH = 9
const RTA_CACHEINFO = 12
const RTA_NH_ID = 30
const RT_TABLE_LOCAL = 255
const RTPROT_REDIRECT = 1
const RTNH_F_ONLINK = 4
/** linux/if_addr.h: INFINITY_LIFE_TIME. */
const FOR_EVER = 0xffffffff

const raw: Codec<Uint8Array> = { encode: bytes => bytes, decode: bytes => bytes }
const u32At = (bytes: Uint8Array, offset: number) =>
  new DataView(bytes.buffer, bytes.byteOffset).getUint32(offset, true)
const withU32 = (bytes: Uint8Array, offset: number, value: number): Uint8Array => {
  const out = bytes.slice()
  new DataView(out.buffer).setUint32(offset, value, true)
  return out
}

/** @returns undefined for an IPv6 address that a router advertised: it comes back by itself @param message an RTM_NEWADDR */
export function saveAddress(message: Message): Saved | undefined {
  const { prefix, flags } = decodeAddress(message)
  if (prefix.ip.length === 16 && (flags & IFA_F_PERMANENT) === 0) return undefined
  return { text: formatPrefix(prefix), message: message.body.toHex() }
}

/** Gives a saved address to a link; one that is there stays. @returns undefined where its lifetime is over */
export function restoreAddress({ text, message }: Saved, index: number, elapsedSeconds: number): Request | undefined {
  const body = Uint8Array.fromHex(message)
  const parts: Uint8Array[] = [withU32(body.subarray(0, ADDRESS_HEADER), 4, index)]
  for (const [type, payload] of walk(body.subarray(ADDRESS_HEADER))) {
    if (type !== IFA_CACHEINFO) {
      parts.push(encodeAttribute(type, raw, payload))
      continue
    }
    const left = [0, 4].map(offset => {
      const seconds = u32At(payload, offset)
      return seconds === FOR_EVER ? seconds : Math.max(0, seconds - elapsedSeconds)
    })
    if (left[1] === 0) return undefined
    parts.push(encodeAttribute(type, raw, withU32(withU32(payload, 0, left[0]!), 4, left[1]!)))
  }
  return {
    type: RTM_NEWADDR,
    flags: NLM_F_ACK | NLM_F_CREATE,
    body: concat(parts),
    about: `give address ${text} back to link ${index}`,
    tolerate: [EEXIST],
  }
}

/**
 * @returns undefined for what the kernel makes by itself (table `local`, what routers advertise) and for a route over
 * several links, of which the kernel keeps the others @param message an RTM_NEWROUTE
 */
export function saveRoute(message: Message): Saved | undefined {
  const route = decodeRoute(message)
  const attributes = new Map(walk(message.body.subarray(ROUTE_HEADER)))
  const cache = attributes.get(RTA_CACHEINFO)
  const expires = cache !== undefined && u32At(cache, 8) !== 0
  if (route.table === RT_TABLE_LOCAL || attributes.has(RTA_MULTIPATH) || expires) return undefined
  if (route.protocol === protocols.ra || route.protocol === RTPROT_REDIRECT) return undefined
  const { outInterface: _, ...rest } = route
  const metric = route.priority === undefined ? '' : ` metric ${route.priority}`
  return { text: `${describeRoute(rest)}${metric}`, message: message.body.toHex() }
}

/** Gives a saved route back, by the link; one that is there stays. */
export function restoreRoute({ text, message }: Saved, index: number): Request {
  const body = Uint8Array.fromHex(message)
  // The kernel wants none of the flags that it tells, but for this one.
  const parts: Uint8Array[] = [withU32(body.subarray(0, ROUTE_HEADER), 8, u32At(body, 8) & RTNH_F_ONLINK)]
  for (const [type, payload] of walk(body.subarray(ROUTE_HEADER))) {
    // A nexthop object has gone with the link; what it stood for is written beside.
    if (type === RTA_NH_ID || type === RTA_CACHEINFO) continue
    parts.push(encodeAttribute(type, raw, type === RTA_OIF ? withU32(payload, 0, index) : payload))
  }
  return {
    type: RTM_NEWROUTE,
    flags: NLM_F_ACK | NLM_F_CREATE,
    body: concat(parts),
    about: `give route ${text} back to link ${index}`,
    tolerate: [EEXIST],
  }
}

/** Routes in an order in which each finds its gateway: those on the link first. */
export const byReach = (saved: readonly Saved[]): Saved[] =>
  saved.toSorted((a, b) => Number(a.text.includes(' via ')) - Number(b.text.includes(' via ')))

/** True for what has to wait until the link is up: IPv6 addresses are lost when it goes down. */
export const isV6 = ({ message }: Saved): boolean => Uint8Array.fromHex(message.slice(0, 2))[0] !== AF_INET
