// SPDX-License-Identifier: Apache-2.0

import { formatPrefix, type Prefix } from '#base'
import { ENOENT } from '#libc'
import {
  attributes,
  concat,
  findAttribute,
  ip,
  type Message,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  type Request,
  string,
  struct,
  u8,
  u32,
} from '#netlink'

const RTM_NEWRULE = 32
const RTM_DELRULE = 33
const RTM_GETRULE = 34
const FR_ACT_TO_TBL = 1
const FRA_TABLE = 15

/** linux/fib_rules.h, struct fib_rule_hdr. */
const header = struct([
  ['family', 'u8'],
  ['destinationLength', 'u8'],
  ['sourceLength', 'u8'],
  ['tos', 'u8'],
  ['table', 'u8'],
  ['reserved1', 'pad8'],
  ['reserved2', 'pad8'],
  ['action', 'u8'],
  ['flags', 'u32'],
])

/** linux/fib_rules.h, FRA_*. */
export const ruleAttributes = attributes({
  destination: [1, ip],
  source: [2, ip],
  inInterface: [3, string(16)],
  priority: [6, u32],
  mark: [10, u32],
  table: [FRA_TABLE, u32],
  markMask: [16, u32],
  outInterface: [17, string(16)],
  protocol: [21, u8],
})

/** A policy routing rule that looks up a table. */
export type Rule = {
  family: number
  priority: number
  table: number
  source?: Prefix
  destination?: Prefix
  inInterface?: string
  outInterface?: string
  mark?: number
  markMask?: number
  protocol?: number
}

/** What rules have in common; what is left out may be anything. */
export type RulePattern = Pick<Rule, 'family' | 'priority'> & Partial<Rule>

function encode(rule: RulePattern): Uint8Array {
  const { family, table = 0, source, destination, ...rest } = rule
  return concat([
    header.encode({
      family,
      destinationLength: destination?.length ?? 0,
      sourceLength: source?.length ?? 0,
      table: table < 256 ? table : 0,
      action: FR_ACT_TO_TBL,
    }),
    ruleAttributes.encode({
      ...(destination === undefined ? {} : { destination: destination.ip }),
      ...(source === undefined ? {} : { source: source.ip }),
      ...rest,
      table,
    }),
  ])
}

/** `rule 1024 from 10.0.0.2/32 iif veth1 lookup 256`, for messages. */
export function describeRule({ priority, source, mark, inInterface, table }: RulePattern): string {
  const from = source === undefined ? '' : ` from ${formatPrefix(source)}`
  const marked = mark === undefined ? '' : ` fwmark 0x${mark.toString(16)}`
  const iif = inInterface === undefined ? '' : ` iif ${inInterface}`
  const lookup = table === undefined ? '' : ` lookup ${table}`
  return `rule ${priority}${from}${marked}${iif}${lookup}`
}

/** Adds a rule; EEXIST where the same is there. */
export const addRule = (rule: Rule): Request => ({
  type: RTM_NEWRULE,
  flags: NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
  body: encode(rule),
  about: `add ${describeRule(rule)}`,
})

/** Removes the first rule that fits. Absence is success: the reply tells (`tolerated`). */
export const deleteRule = (rule: RulePattern): Request => ({
  type: RTM_DELRULE,
  flags: NLM_F_ACK,
  body: encode(rule),
  about: `remove ${describeRule(rule)}`,
  tolerate: [ENOENT],
})

/** Asks for the rules of a family. */
export const dumpRules = (family: number): Request => ({
  type: RTM_GETRULE,
  flags: NLM_F_DUMP,
  body: header.encode({ family }),
  about: 'list rules',
})

/**
 * The table that a rule looks up, and nothing else of it: of thousands, that takes a tenth of the time.
 * @param message an RTM_NEWRULE
 */
export function tableOfRule({ body }: Message): number {
  const table = findAttribute(body, header.size, FRA_TABLE)
  return table === undefined ? body[TABLE_OFFSET]! : u32.decode(table)
}
/** Where the table stands in the header, if it is below 256 and the attribute is missing. */
const TABLE_OFFSET = 4

/** @param message an RTM_NEWRULE */
export function decodeRule(message: Message): Rule {
  const head = header.decode(message.body)
  const { destination, source, table, priority, ...rest } = ruleAttributes.decode(message.body.subarray(header.size))
  return {
    family: head.family ?? 0,
    priority: priority ?? 0,
    table: table ?? head.table ?? 0,
    ...(source === undefined ? {} : { source: { ip: source, length: head.sourceLength ?? 0 } }),
    ...(destination === undefined ? {} : { destination: { ip: destination, length: head.destinationLength ?? 0 } }),
    ...rest,
  }
}
