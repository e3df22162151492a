// SPDX-License-Identifier: Apache-2.0

import { attributes, u32 } from '#netlink'

/** linux/if_link.h, IFLA_VRF_*. */
export const vrf = attributes({ table: [1, u32] })
