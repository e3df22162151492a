// SPDX-License-Identifier: Apache-2.0

import {
  attributes,
  bytes,
  type Infer,
  mentions,
  NLM_F_APPEND,
  NLM_F_CREATE,
  NLM_F_DUMP,
  string,
  type Transport,
  u64be,
} from '#netlink'
import { type Chain, formatChain } from './chain.ts'
import { type Expression, expressions } from './expressions/expression.ts'
import { type Change, decodeAnswer, message, NFT_MSG_DELRULE, NFT_MSG_GETRULE, NFT_MSG_NEWRULE } from './message.ts'
import { decodeComment, encodeComment } from './userdata.ts'

// linux/netfilter/nf_tables.h, enum nft_rule_attributes
const NFTA_RULE_TABLE = 1
const NFTA_RULE_CHAIN = 2
const NFTA_RULE_HANDLE = 3
const NFTA_RULE_EXPRESSIONS = 4
const NFTA_RULE_POSITION = 6
const NFTA_RULE_USERDATA = 7

export const ruleAttributes = attributes({
  table: [NFTA_RULE_TABLE, string()],
  chain: [NFTA_RULE_CHAIN, string()],
  handle: [NFTA_RULE_HANDLE, u64be],
  expressions: [NFTA_RULE_EXPRESSIONS, expressions],
  position: [NFTA_RULE_POSITION, u64be],
  userdata: [NFTA_RULE_USERDATA, bytes],
})
export type RuleAttributes = Infer<typeof ruleAttributes>

/** A rule: expressions, worked off in order until one breaks off or gives a verdict. */
export type Rule = { readonly expressions: readonly Expression[]; readonly comment?: string }

/** Adds the rule at the end of its chain, or with `first` before all others. A rule has no identity: twice is two. */
export function addRule(chain: Pick<Chain, 'table' | 'name'>, rule: Rule, options: { first?: boolean } = {}): Change {
  const values: RuleAttributes = {
    table: chain.table.name,
    chain: chain.name,
    expressions: [...rule.expressions],
    ...(rule.comment === undefined ? {} : { userdata: encodeComment(rule.comment) }),
  }
  return message(NFT_MSG_NEWRULE, chain.table.family, ruleAttributes, values, {
    verb: 'add',
    object: `rule${rule.comment === undefined ? '' : ` "${rule.comment}"`} of chain ${formatChain(chain)}`,
    flags: NLM_F_CREATE | (options.first ? 0 : NLM_F_APPEND),
  })
}

/** Removes one rule of a chain, or without `handle` all of them. */
export function deleteRules(chain: Pick<Chain, 'table' | 'name'>, handle?: bigint): Change {
  const values: RuleAttributes = {
    table: chain.table.name,
    chain: chain.name,
    ...(handle === undefined ? {} : { handle }),
  }
  return message(NFT_MSG_DELRULE, chain.table.family, ruleAttributes, values, {
    verb: 'delete',
    object: `${handle === undefined ? 'rules' : `rule ${handle}`} of chain ${formatChain(chain)}`,
  })
}

const dumpRules = (chain: Pick<Chain, 'table' | 'name'>): Change =>
  message(
    NFT_MSG_GETRULE,
    chain.table.family,
    ruleAttributes,
    { table: chain.table.name, chain: chain.name },
    { verb: 'list', object: `rules of chain ${formatChain(chain)}`, flags: NLM_F_DUMP },
  )

/** The rules of a chain, in order. @throws {NetlinkError} */
export function listRules(transport: Transport, chain: Pick<Chain, 'table' | 'name'>): Rule[] {
  return transport.execute([dumpRules(chain)])[0]!.messages.map(answer => {
    const { values } = decodeAnswer(answer.body, ruleAttributes)
    const comment = decodeComment(values.userdata)
    return { expressions: values.expressions ?? [], ...(comment === undefined ? {} : { comment }) }
  })
}

/** Handles of the rules that have a text in them: the name of a chain to which they lead, a comment. @throws {NetlinkError} */
export function findRules(transport: Transport, chain: Pick<Chain, 'table' | 'name'>, text: string): bigint[] {
  return transport
    .execute([dumpRules(chain)])[0]!
    .messages.filter(({ body }) => mentions(body, [text]))
    .flatMap(({ body }) => decodeAnswer(body, ruleAttributes).values.handle ?? [])
}
