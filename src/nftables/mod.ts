// SPDX-License-Identifier: Apache-2.0

// nftables: tables, chains, sets, elements and rules of the kernel's nf_tables, and the batch that changes them at once.
// What `nft` writes, this writes, byte by byte; `nft list ruleset` shows it as if nft had made it. No rule of Mooring's
// own stands here (those are in `host`), no process is started, nothing is cached: a caller that must know, asks.

export * from './batch.ts'
export * from './chain.ts'
export * from './compare-rules.ts'
export * from './data.ts'
export * from './datatype.ts'
export * from './element.ts'
export * from './expressions/bitwise.ts'
export * from './expressions/cmp.ts'
export * from './expressions/counter.ts'
export * from './expressions/ct.ts'
export * from './expressions/expression.ts'
export * from './expressions/fib.ts'
export * from './expressions/forward.ts'
export * from './expressions/immediate.ts'
export * from './expressions/lookup.ts'
export * from './expressions/masquerade.ts'
export * from './expressions/meta.ts'
export * from './expressions/nat.ts'
export * from './expressions/payload.ts'
export * from './message.ts'
export * from './rule.ts'
export * from './set.ts'
export * from './table.ts'
export * from './userdata.ts'
