// SPDX-License-Identifier: Apache-2.0

import { ENODEV } from '#libc'
import {
  attributes,
  bodyEncoder,
  bytes,
  type Codec,
  type Infer,
  list,
  type Message,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  nested,
  type Request,
  s32,
  string,
  struct,
  tagged,
  u8,
  u32,
  type Values,
  type Writer,
  walk,
  written,
} from '#netlink'
import { bridge, bridgePort } from './kinds/bridge.ts'
import { dummy } from './kinds/dummy.ts'
import { ipvlan } from './kinds/ipvlan.ts'
import { macvlan } from './kinds/macvlan.ts'
import { veth } from './kinds/veth.ts'
import { vrf } from './kinds/vrf.ts'

const RTM_NEWLINK = 16
const RTM_DELLINK = 17
const RTM_GETLINK = 18
/** RTMGRP_LINK: notifications of every change to a link. */
export const RTM_GROUP_LINK = 1
/** Interface names: 15 bytes and a zero (linux/if.h). */
export const IFNAMSIZ = 16
export const IFF_UP = 0x1
/** Of `operstate`. */
export const IF_OPER_UP = 6
export const IFF_NOARP = 0x80
/** Takes every frame, because somebody set it so: who only listens for a while (tcpdump) does not show here. */
export const IFF_PROMISC = 0x100
/** Carrier and up: traffic can flow. */
export const IFF_LOWER_UP = 0x10000

/** linux/rtnetlink.h, struct ifinfomsg. */
export const linkHeader = struct([
  ['family', 'u8'],
  ['pad', 'pad8'],
  ['hardware', 'u16'],
  ['index', 's32'],
  ['flags', 'u32'],
  ['change', 'u32'],
])

/** linux/if_link.h, IFLA_*. */
const rows = {
  address: [1, bytes],
  broadcast: [2, bytes],
  ifname: [3, string(IFNAMSIZ)],
  mtu: [4, u32],
  /** Index of the parent, or of the peer of a veth. */
  link: [5, s32],
  master: [10, s32],
  txqlen: [13, u32],
  operstate: [16, u8],
  linkmode: [17, u8],
  netnsPid: [19, u32],
  ifalias: [20, string(256)],
  group: [27, u32],
  netnsFd: [28, s32],
  extMask: [29, u32],
  promiscuity: [30, u32],
  txQueues: [31, u32],
  rxQueues: [32, u32],
  netnsImmutable: [44, u8],
  /** Identifies the namespace of `link` where it is another one. */
  linkNetnsid: [37, s32],
  altIfname: [53, string(128)],
  permAddress: [54, bytes],
  /** The device of a bus behind the link: `0000:00:05.0` of `pci`, `virtio2` of `virtio` (Linux 5.14). */
  parentDevName: [56, string()],
  parentDevBusName: [57, string()],
} as const

/** The attributes of a veth's other end: everything but the kind itself. */
const peerAttributes = attributes(rows)

const kinds = tagged(1, 2, { veth: veth(linkHeader, peerAttributes), bridge, dummy, macvlan, ipvlan, vrf })
const IFLA_INFO_SLAVE_KIND = 4
const IFLA_INFO_SLAVE_DATA = 5

type Linkinfo = Infer<typeof kinds> & { port?: Infer<typeof bridgePort> }
function writeLinkinfo(to: Writer, { port, ...kind }: Linkinfo): void {
  to.value(kinds, kind)
  if (port !== undefined) to.attribute(IFLA_INFO_SLAVE_DATA, bridgePort, port)
}

/** What a link is, and what it is as a port of a bridge. To set the latter alone, `ip` names the kind `bridge_slave`. */
const linkinfo: Codec<Linkinfo> = {
  encode: value => written(to => writeLinkinfo(to, value)),
  write: writeLinkinfo,
  decode: data => {
    const found = new Map(walk(data))
    const port = found.get(IFLA_INFO_SLAVE_DATA)
    const isPort = string().decode(found.get(IFLA_INFO_SLAVE_KIND) ?? new Uint8Array(0)) === 'bridge'
    return { ...kinds.decode(data), ...(isPort && port !== undefined ? { port: bridgePort.decode(port) } : {}) }
  },
}

const table = {
  ...rows,
  linkinfo: [18, linkinfo],
  propList: [52, nested(list(53, string(128)))],
} as const
export const linkAttributes = attributes(table)
const bodyOf = bodyEncoder(linkHeader, linkAttributes)

/** linux/ip.h, IPV4_DEVCONF_*, each of which is one of /proc/sys/net/ipv4/conf. Only set: the kernel tells them in another form. */
const ipv4Settings = attributes({ arpNotify: [22, u32] })
/** IFLA_AF_SPEC, AF_INET, IFLA_INET_CONF. */
const settings = attributes({ families: [26, attributes({ ipv4: [2, attributes({ settings: [1, ipv4Settings] })] })] })
const settingsBodyOf = bodyEncoder(linkHeader, settings)
export type LinkAttributes = Values<typeof table>

/** A link as the kernel reports it. */
export type Link = LinkAttributes & { index: number; flags: number; hardware: number }

type Target = { index: number } | { ifname: string }
const describe = (target: Target) => ('index' in target ? `link ${target.index}` : `link ${target.ifname}`)

/** Makes a link. Fails with EEXIST where the name is taken. `up` brings it up at once (not a veth: its peer is missing yet). */
export function addLink(
  link: LinkAttributes & { ifname: string },
  options: { up?: boolean; index?: number } = {},
): Request {
  const up = options.up === true ? IFF_UP : 0
  return {
    type: RTM_NEWLINK,
    flags: NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
    body: bodyOf({ index: options.index ?? 0, flags: up, change: up }, link),
    about: `add ${link.linkinfo?.kind ?? ''} link ${link.ifname}`,
  }
}

/** Changes a link: attributes, `up` or down, and whether it takes every frame. */
export function setLink(
  target: Target,
  change: LinkAttributes & { up?: boolean; promiscuous?: boolean },
  about?: string,
): Request {
  const { up, promiscuous, ...values } = change
  const flag = (wanted: boolean | undefined, bit: number) => (wanted === undefined ? 0 : bit)
  return {
    type: RTM_NEWLINK,
    flags: NLM_F_ACK,
    body: bodyOf(
      {
        index: 'index' in target ? target.index : 0,
        flags: (up === true ? IFF_UP : 0) | (promiscuous === true ? IFF_PROMISC : 0),
        change: flag(up, IFF_UP) | flag(promiscuous, IFF_PROMISC),
      },
      'index' in target ? values : { ifname: target.ifname, ...values },
    ),
    about: about ?? (up === undefined ? `change ${describe(target)}` : `set ${describe(target)} ${up ? 'up' : 'down'}`),
  }
}

/** Has a link tell its neighbours of its IPv4 addresses when it comes up (`arp_notify`). */
export const setArpNotify = (index: number): Request => ({
  type: RTM_NEWLINK,
  flags: NLM_F_ACK,
  body: settingsBodyOf({ index }, { families: { ipv4: { settings: { arpNotify: 1 } } } }),
  about: `let link ${index} announce its addresses`,
})

/** Removes a link, or every link of a group in one RCU grace period. Absence is success. */
export function deleteLink(target: Target | { group: number }): Request {
  return {
    type: RTM_DELLINK,
    flags: NLM_F_ACK,
    body: bodyOf('index' in target ? { index: target.index } : {}, 'index' in target ? {} : { ...target }),
    about: 'group' in target ? `remove links of group ${target.group}` : `remove ${describe(target)}`,
    tolerate: [ENODEV],
  }
}

/** Asks for one link, by number, name or alternative name; absence is an empty reply. */
export function getLink(target: Target): Request {
  return {
    type: RTM_GETLINK,
    flags: 0,
    asks: true,
    body: bodyOf(
      'index' in target ? { index: target.index } : {},
      'index' in target ? {} : nameAttribute(target.ifname),
    ),
    about: `find ${describe(target)}`,
    tolerate: [ENODEV],
  }
}

/** The kernel looks for either kind of name by the one attribute; only the other has room for a long one. */
const nameAttribute = (name: string): LinkAttributes =>
  new TextEncoder().encode(name).length < IFNAMSIZ ? { ifname: name } : { altIfname: name }

/** Asks for all links. */
export const dumpLinks = (): Request => ({
  type: RTM_GETLINK,
  flags: NLM_F_DUMP,
  body: linkHeader.encode({}),
  about: 'list links',
})

/** @param message an RTM_NEWLINK */
export function decodeLink(message: Message): Link {
  const { index = 0, flags = 0, hardware = 0 } = linkHeader.decode(message.body)
  return { ...linkAttributes.decode(message.body.subarray(linkHeader.size)), index, flags, hardware }
}

/** One attribute of a link, without a look at the others. @param message an RTM_NEWLINK */
export const readLinkAttribute = <K extends keyof typeof table>(
  message: Message,
  name: K,
): LinkAttributes[K] | undefined => linkAttributes.pick(message.body.subarray(linkHeader.size), name)

/** @param message an RTM_NEWLINK */
export const readLinkIndex = (message: Message): number => linkHeader.decode(message.body).index ?? 0
