// SPDX-License-Identifier: Apache-2.0

// base: the nouns that every room needs: addresses, prefixes, MACs, deadlines.
// Pure functions over plain data. Does no I/O, holds no state; imports one package, for SHA-256.

export * from './deadline.ts'
export * from './digest.ts'
export * from './ip.ts'
export * from './mac.ts'
