// SPDX-License-Identifier: Apache-2.0

import { attributes, u16 } from '#netlink'

/** linux/if_link.h, enum ipvlan_mode. */
export const ipvlanModes = Object.freeze({ l2: 0, l3: 1, l3s: 2 } as const)
export type IpvlanMode = keyof typeof ipvlanModes
/** linux/if_link.h, IPVLAN_F_*; neither set means bridge. */
export const ipvlanFlags = Object.freeze({ bridge: 0, private: 1, vepa: 2 } as const)

/** linux/if_link.h, IFLA_IPVLAN_*. */
export const ipvlan = attributes({ mode: [1, u16], flags: [2, u16] })
