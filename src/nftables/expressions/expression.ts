// SPDX-License-Identifier: Apache-2.0

import { type Infer, list, nested, tagged } from '#netlink'
import { bitwiseAttributes } from './bitwise.ts'
import { cmpAttributes } from './cmp.ts'
import { counterAttributes } from './counter.ts'
import { ctAttributes } from './ct.ts'
import { fibAttributes } from './fib.ts'
import { forwardAttributes } from './forward.ts'
import { immediateAttributes } from './immediate.ts'
import { lookupAttributes } from './lookup.ts'
import { masqueradeAttributes } from './masquerade.ts'
import { metaAttributes } from './meta.ts'
import { natAttributes } from './nat.ts'
import { payloadAttributes } from './payload.ts'

// linux/netfilter/nf_tables.h
const NFTA_LIST_ELEM = 1
const NFTA_EXPR_NAME = 1
const NFTA_EXPR_DATA = 2

/**
 * One step of a rule: its kernel name and attributes. Registers are those of the kernel: 0 is the verdict, 1 to 4 hold 16
 * bytes each and follow one another, so that a key of interface name and address is loaded into 1 and 2.
 */
const expression = nested(
  tagged(NFTA_EXPR_NAME, NFTA_EXPR_DATA, {
    bitwise: bitwiseAttributes,
    cmp: cmpAttributes,
    counter: counterAttributes,
    ct: ctAttributes,
    fib: fibAttributes,
    fwd: forwardAttributes,
    immediate: immediateAttributes,
    lookup: lookupAttributes,
    masq: masqueradeAttributes,
    meta: metaAttributes,
    nat: natAttributes,
    payload: payloadAttributes,
  }),
)
export type Expression = Infer<typeof expression>

/** The expressions of a rule. */
export const expressions = nested(list(NFTA_LIST_ELEM, expression))
