// SPDX-License-Identifier: Apache-2.0

import { attributes, u8, u16, u32 } from '#netlink'

/** linux/if_link.h, IFLA_BR_*: times are in USER_HZ, 1/100 s. */
export const bridge = attributes({
  forwardDelay: [1, u32],
  helloTime: [2, u32],
  maxAge: [3, u32],
  ageingTime: [4, u32],
  stpState: [5, u32],
  priority: [6, u16],
  vlanFiltering: [7, u8],
  vlanProtocol: [8, u16],
  groupFwdMask: [9, u16],
  mcastSnooping: [23, u8],
  /** The VLAN that a new port is in, untagged; 0: none. */
  vlanDefaultPvid: [39, u16],
})

/** linux/if_link.h, IFLA_BRPORT_*: what a link is as the port of a bridge. */
export const bridgePort = attributes({
  /** BR_STATE_*; 3 is forwarding. */
  state: [1, u8],
  /** Sends what came in by the port out there again: "hairpin mode". */
  hairpin: [4, u8],
  /** Speaks to ports that are not isolated only. */
  isolated: [33, u8],
})
export const BR_STATE_FORWARDING = 3
