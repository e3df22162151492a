// SPDX-License-Identifier: Apache-2.0

import { childPlugin } from '../../child-link.ts'
import { parseConfig } from './config.ts'

/** A link with a MAC of its own on a link of the node: the container is on the segment as if it had a NIC there. */
export const macvlan = childPlugin({ type: 'macvlan', parse: parseConfig })
