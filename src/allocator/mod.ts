// SPDX-License-Identifier: Apache-2.0

// allocator: what is ours, and which address may be given to whom: the journal and the address pools above it.
// Pure decisions beside the stores they act on (disk, Neutron). No CNI here, and no kernel.

export * from './attachment.ts'
export * from './journal.ts'
export * from './ranges.ts'
export * from './reservations.ts'
