// SPDX-License-Identifier: Apache-2.0

import { EEXIST, EINVAL, ENODEV, ENOENT } from '#libc'
import {
  attributes,
  concat,
  list,
  NLM_F_ACK,
  NLM_F_APPEND,
  NLM_F_CREATE,
  NLM_F_EXCL,
  nested,
  type Request,
  string,
} from '#netlink'
import { linkHeader } from './link.ts'

const RTM_NEWLINKPROP = 108
const RTM_DELLINKPROP = 109
/** linux/if_link.h, IFLA_PROP_LIST of IFLA_ALT_IFNAME. */
const properties = attributes({ altnames: [52, nested(list(53, string(128)))] })

const body = (index: number, name: string) =>
  concat([linkHeader.encode({ index }), properties.encode({ altnames: [name] })])

/** Gives a link one more name. One that the link, or another, has already is tolerated. */
export const addAltname = (index: number, name: string): Request => ({
  type: RTM_NEWLINKPROP,
  flags: NLM_F_ACK | NLM_F_EXCL | NLM_F_CREATE | NLM_F_APPEND,
  body: body(index, name),
  about: `add alternative name ${name} to link ${index}`,
  tolerate: [EEXIST],
})

/** Takes an alternative name from a link. Absence is success. */
export const deleteAltname = (index: number, name: string): Request => ({
  type: RTM_DELLINKPROP,
  flags: NLM_F_ACK,
  body: body(index, name),
  about: `remove alternative name ${name} from link ${index}`,
  tolerate: [ENOENT, ENODEV, EINVAL],
})
