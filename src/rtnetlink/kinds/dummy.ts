// SPDX-License-Identifier: Apache-2.0

import { attributes } from '#netlink'

/** drivers/net/dummy.c takes no attributes of its own. */
export const dummy = attributes({})
