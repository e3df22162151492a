// SPDX-License-Identifier: Apache-2.0

// base: the nouns that every room needs: addresses, prefixes, MACs, deadlines.
// Pure functions over plain data. Imports nothing, does no I/O, holds no state.

export * from './deadline.ts'
export * from './ip.ts'
export * from './mac.ts'
