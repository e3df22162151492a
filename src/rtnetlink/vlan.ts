// SPDX-License-Identifier: Apache-2.0

import { ENOENT } from '#libc'
import {
  attributes,
  bytes,
  concat,
  encodeAttribute,
  type Message,
  NLM_F_ACK,
  NLM_F_DUMP,
  type Request,
  struct,
  u32,
  walk,
} from '#netlink'
import { linkHeader } from './link.ts'

// linux/rtnetlink.h and linux/if_bridge.h: VLANs of bridge ports travel in link messages of the family AF_BRIDGE.
const RTM_GETLINK = 18
const RTM_DELLINK = 17
const RTM_SETLINK = 19
const AF_BRIDGE = 7
const IFLA_AF_SPEC = 26
const IFLA_EXT_MASK = 29
const RTEXT_FILTER_BRVLAN = 2
const IFLA_BRIDGE_VLAN_INFO = 2
const PVID = 0x2
const UNTAGGED = 0x4
const RANGE_BEGIN = 0x8
const RANGE_END = 0x10

/** linux/if_bridge.h, struct bridge_vlan_info. */
const vlanInfo = struct([
  ['flags', 'u16'],
  ['vid', 'u16'],
])

/** The VLANs `from` to `to` of a port. `pvid`: what comes in untagged is in it; `untagged`: it leaves without its tag. */
export type PortVlans = { from: number; to: number; pvid?: boolean; untagged?: boolean }

const describe = ({ from, to }: PortVlans) => (from === to ? `VLAN ${from}` : `VLANs ${from} to ${to}`)

function vlanRequest(type: number, verb: string, index: number, vlans: PortVlans): Request {
  const { from, to, pvid, untagged } = vlans
  const flags = (pvid ? PVID : 0) | (untagged ? UNTAGGED : 0)
  const infos =
    from === to
      ? [{ flags, vid: from }]
      : [
          { flags: flags | RANGE_BEGIN, vid: from },
          { flags: flags | RANGE_END, vid: to },
        ]
  const spec = concat(infos.map(info => encodeAttribute(IFLA_BRIDGE_VLAN_INFO, vlanInfo, info)))
  return {
    type,
    flags: NLM_F_ACK,
    body: concat([linkHeader.encode({ family: AF_BRIDGE, index }), encodeAttribute(IFLA_AF_SPEC, bytes, spec)]),
    about: `${verb} ${describe(vlans)} ${verb === 'add' ? 'to' : 'from'} bridge port ${index}`,
  }
}

/** Lets a port of a bridge carry VLANs; those that it carries already change their flags. */
export const addPortVlans = (index: number, vlans: PortVlans): Request => vlanRequest(RTM_SETLINK, 'add', index, vlans)

/** Ends that. Absence is success. */
export const deletePortVlans = (index: number, vlans: PortVlans): Request => ({
  ...vlanRequest(RTM_DELLINK, 'remove', index, vlans),
  tolerate: [ENOENT],
})

/** Asks for the VLANs of every port of every bridge. */
export const dumpPortVlans = (): Request => ({
  type: RTM_GETLINK,
  flags: NLM_F_DUMP,
  body: concat([
    linkHeader.encode({ family: AF_BRIDGE }),
    attributes({ extMask: [IFLA_EXT_MASK, u32] }).encode({ extMask: RTEXT_FILTER_BRVLAN }),
  ]),
  about: 'list VLANs of bridge ports',
})

/** @param message an RTM_NEWLINK of `dumpPortVlans`: one port, or the bridge itself */
export function decodePortVlans(message: Message): { index: number; vlans: Required<PortVlans>[] } {
  const { index = 0 } = linkHeader.decode(message.body)
  const vlans: Required<PortVlans>[] = []
  for (const [type, spec] of walk(message.body.subarray(linkHeader.size))) {
    if (type !== IFLA_AF_SPEC) continue
    let from: number | undefined
    for (const [inner, payload] of walk(spec)) {
      if (inner !== IFLA_BRIDGE_VLAN_INFO) continue
      const { flags = 0, vid = 0 } = vlanInfo.decode(payload)
      if (flags & RANGE_BEGIN) from = vid
      else {
        vlans.push({ from: from ?? vid, to: vid, pvid: (flags & PVID) !== 0, untagged: (flags & UNTAGGED) !== 0 })
        from = undefined
      }
    }
  }
  return { index, vlans }
}
