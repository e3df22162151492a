// SPDX-License-Identifier: Apache-2.0

// netlink: framing, attributes and sockets of the kernel's netlink protocol, for every family.
// No family's constants live here: rtnetlink and nftables bring their tables. One interpreter reads them all.

export * from './attribute.ts'
export * from './error.ts'
export type { Reply, Transport } from './exchange.ts'
export * from './message.ts'
export * from './socket.ts'
