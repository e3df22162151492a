// SPDX-License-Identifier: Apache-2.0

import { attributes, u16, u32 } from '#netlink'

/** linux/if_link.h, enum macvlan_mode. */
export const macvlanModes = Object.freeze({ private: 1, vepa: 2, bridge: 4, passthru: 8, source: 16 } as const)
export type MacvlanMode = keyof typeof macvlanModes

/** linux/if_link.h, IFLA_MACVLAN_*. */
export const macvlan = attributes({
  mode: [1, u32],
  flags: [2, u16],
  bcQueueLen: [7, u32],
  bcQueueLenUsed: [8, u32],
})
