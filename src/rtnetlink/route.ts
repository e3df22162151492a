// SPDX-License-Identifier: Apache-2.0

import { formatIp, formatPrefix, type Ip, type Prefix } from '#base'
import { EHOSTUNREACH, ENETUNREACH, ENODEV, ENOENT, ESRCH } from '#libc'
import {
  attributes,
  bodyEncoder,
  bytes,
  type Codec,
  ip,
  type Message,
  NLM_F_ACK,
  NLM_F_APPEND,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  type Request,
  s32,
  struct,
  u32,
} from '#netlink'
import { familyOf, scopes } from './address.ts'

const RTM_NEWROUTE = 24
const RTM_DELROUTE = 25
const RTM_GETROUTE = 26
export const RTN_UNICAST = 1
/** The node itself has the address. */
export const RTN_LOCAL = 2
/** linux/rtnetlink.h, RTPROT_*: who made a route. Ours is a number that nobody else has claimed, so that orphans are found. */
export const protocols = Object.freeze({ kernel: 2, boot: 3, static: 4, ra: 9, mooring: 98 } as const)
export const RT_TABLE_MAIN = 254
const RTNH_F_ONLINK = 4
const RTM_F_FIB_MATCH = 0x2000

/** linux/rtnetlink.h, struct rtmsg. */
const header = struct([
  ['family', 'u8'],
  ['destinationLength', 'u8'],
  ['sourceLength', 'u8'],
  ['tos', 'u8'],
  ['table', 'u8'],
  ['protocol', 'u8'],
  ['scope', 'u8'],
  ['type', 'u8'],
  ['flags', 'u32'],
])

/** linux/rtnetlink.h, RTAX_*. */
const metrics = attributes({ mtu: [2, u32], advmss: [8, u32] })

/** linux/rtnetlink.h, struct rtnexthop: its length, the attributes after it included, stands first. */
const nextHopHeader = struct([
  ['length', 'u16'],
  ['flags', 'u8'],
  ['weight', 'u8'],
  ['index', 's32'],
])
const nextHopAttributes = attributes({ gateway: [5, ip] })

/** linux/rtnetlink.h, struct rta_cacheinfo, as far as it is looked at. Only IPv6 routes expire. */
const cacheInfo = struct([
  ['references', 'u32'],
  ['lastUse', 'u32'],
  ['expiresTicks', 's32'],
])

/** One of several ways of a route. */
export type NextHop = { outInterface: number; gateway?: Ip }

/** RTA_MULTIPATH. Only read: whoever adds a way appends a route. */
const nextHops: Codec<NextHop[]> = {
  encode: () => {
    throw new TypeError('Cannot encode the ways of a route: add each as a route')
  },
  decode: data => {
    const hops: NextHop[] = []
    for (let offset = 0; offset + nextHopHeader.size <= data.length; ) {
      const { length = 0, index = 0 } = nextHopHeader.decode(data.subarray(offset))
      if (length < nextHopHeader.size || offset + length > data.length)
        throw new RangeError(
          `Cannot decode the ways of a route: length ${length} at offset ${offset} of ${data.length}`,
        )
      const { gateway } = nextHopAttributes.decode(data.subarray(offset + nextHopHeader.size, offset + length))
      hops.push({ outInterface: index, ...(gateway === undefined ? {} : { gateway }) })
      offset += (length + 3) & ~3
    }
    return hops
  },
}

/** linux/rtnetlink.h, RTA_*. */
const routeAttributes = attributes({
  destination: [1, ip],
  outInterface: [4, s32],
  gateway: [5, ip],
  priority: [6, u32],
  preferredSource: [7, ip],
  metrics: [8, metrics],
  nextHops: [9, nextHops],
  cacheInfo: [12, cacheInfo],
  table: [15, u32],
  via: [18, bytes],
})
const bodyOf = bodyEncoder(header, routeAttributes)

/** A route. `destination` undefined is the default route of `family`. */
export type Route = {
  family: number
  destination?: Prefix
  gateway?: Ip
  /** Index of the link. */
  outInterface?: number
  preferredSource?: Ip
  priority?: number
  table?: number
  scope?: number
  protocol?: number
  /** RTN_*; unicast where left out. */
  type?: number
  mtu?: number
  advmss?: number
  /** Take the gateway for reachable on the link although no address says so. */
  onlink?: boolean
  /** It has a gateway of the other family, which is not told; only ever read. */
  isVia?: true
  /** It goes by itself after a while; only ever read. */
  expires?: true
  /** The ways of a route that has several, instead of `gateway` and `outInterface`; only ever read. */
  nextHops?: readonly NextHop[]
}

/** `10.0.0.0/8 via 10.99.0.1`, for messages. */
export function describeRoute(route: Route): string {
  const destination = route.destination === undefined ? 'default' : formatPrefix(route.destination)
  const via = route.gateway === undefined ? '' : ` via ${formatIp(route.gateway)}`
  const dev = route.outInterface === undefined ? '' : ` dev ${route.outInterface}`
  return `${destination}${via}${dev}`
}

function encode(route: Route): Uint8Array {
  const table = route.table ?? RT_TABLE_MAIN
  const { mtu, advmss } = route
  return bodyOf(
    {
      family: route.family,
      destinationLength: route.destination?.length ?? 0,
      table: table < 256 ? table : 0,
      protocol: route.protocol ?? protocols.mooring,
      scope: route.scope ?? (route.gateway === undefined ? scopes.link : scopes.universe),
      type: route.type ?? RTN_UNICAST,
      flags: route.onlink === true ? RTNH_F_ONLINK : 0,
    },
    {
      ...(route.destination === undefined ? {} : { destination: route.destination.ip }),
      ...(route.gateway === undefined ? {} : { gateway: route.gateway }),
      ...(route.outInterface === undefined ? {} : { outInterface: route.outInterface }),
      ...(route.preferredSource === undefined ? {} : { preferredSource: route.preferredSource }),
      ...(route.priority === undefined ? {} : { priority: route.priority }),
      ...(table < 256 ? {} : { table }),
      ...(mtu === undefined && advmss === undefined
        ? {}
        : { metrics: { ...(mtu === undefined ? {} : { mtu }), ...(advmss === undefined ? {} : { advmss }) } }),
    },
  )
}

/** Adds a route; `append` beside one to the same destination, `replace` instead of it, else EEXIST. */
export function addRoute(route: Route, mode: 'exclusive' | 'append' | 'replace' = 'exclusive'): Request {
  const flags = { exclusive: NLM_F_EXCL, append: NLM_F_APPEND, replace: NLM_F_REPLACE }[mode]
  return {
    type: RTM_NEWROUTE,
    flags: NLM_F_ACK | NLM_F_CREATE | flags,
    body: encode(route),
    get about() {
      return `add route ${describeRoute(route)}`
    },
  }
}

/** Removes a route. Absence is success. */
export function deleteRoute(route: Route): Request {
  return {
    type: RTM_DELROUTE,
    flags: NLM_F_ACK,
    // Scope "nowhere" matches any scope.
    body: encode({ ...route, scope: route.scope ?? scopes.nowhere }),
    about: `remove route ${describeRoute(route)}`,
    tolerate: [ESRCH, ENODEV],
  }
}

/** Asks for the routes of a family in one table (the kernel filters), or of one protocol. */
export const dumpRoutes = (
  family: number,
  filter: { table?: number; protocol?: number; outInterface?: number } = {},
): Request => ({
  type: RTM_GETROUTE,
  flags: NLM_F_DUMP,
  body: bodyOf(
    { family, protocol: filter.protocol ?? 0 },
    {
      ...(filter.table === undefined ? {} : { table: filter.table }),
      ...(filter.outInterface === undefined ? {} : { outInterface: filter.outInterface }),
    },
  ),
  about: `list routes${filter.table === undefined ? '' : ` of table ${filter.table}`}`,
  // There is no such table: no routes.
  tolerate: [ENOENT],
})

/** Asks which route of the forwarding table an address takes: the entry itself, not what is made of it. None: an empty reply. */
export const lookupRoute = (address: Ip): Request => ({
  type: RTM_GETROUTE,
  flags: 0,
  asks: true,
  body: bodyOf(
    { family: familyOf(address), destinationLength: address.length * 8, flags: RTM_F_FIB_MATCH },
    { destination: address },
  ),
  get about() {
    return `look up the route to ${formatIp(address)}`
  },
  tolerate: [ENETUNREACH, EHOSTUNREACH, ESRCH],
})

/** RTN_* alone, without a look at the attributes. @param message an RTM_NEWROUTE */
export const readRouteType = (message: Message): number => header.decode(message.body).type ?? 0

/** @param message an RTM_NEWROUTE */
export function decodeRoute(message: Message): Route {
  const head = header.decode(message.body)
  const values = routeAttributes.decode(message.body.subarray(header.size))
  const family = head.family ?? 0
  return {
    family,
    ...(values.destination === undefined
      ? {}
      : { destination: { ip: values.destination, length: head.destinationLength ?? 0 } }),
    ...(values.gateway === undefined ? {} : { gateway: values.gateway }),
    ...(values.outInterface === undefined ? {} : { outInterface: values.outInterface }),
    ...(values.preferredSource === undefined ? {} : { preferredSource: values.preferredSource }),
    ...(values.priority === undefined ? {} : { priority: values.priority }),
    table: values.table ?? head.table ?? 0,
    scope: head.scope ?? 0,
    protocol: head.protocol ?? 0,
    type: head.type ?? 0,
    ...(values.nextHops === undefined ? {} : { nextHops: values.nextHops }),
    ...(values.metrics?.mtu === undefined ? {} : { mtu: values.metrics.mtu }),
    ...(values.metrics?.advmss === undefined ? {} : { advmss: values.metrics.advmss }),
    ...(values.via === undefined ? {} : { isVia: true as const }),
    ...((values.cacheInfo?.expiresTicks ?? 0) === 0 ? {} : { expires: true as const }),
  }
}
