// SPDX-License-Identifier: Apache-2.0

// allocator: what is ours, and which address may be given to whom: the journal and the address pools above it.
// Pure decisions beside the stores they act on (disk, Neutron). No CNI here, and no kernel.

export * from './ahead.ts'
export * from './attachment.ts'
export { type Census, takeCensus } from './census.ts'
export * from './journal.ts'
export * from './lane.ts'
export {
  type CloudObject,
  type KnownPool,
  type MadeObject,
  markOfName,
  nameOfMark,
  type ObjectAccess,
  type ObjectAddress,
  type ObjectDriver,
  type ObjectPool,
  type ObjectRequest,
  type ObjectSettings,
  type ObjectState,
  type Room,
} from './objects/object.ts'
export { type ObjectPoolOptions, openObjectPool, poolDigitsOf } from './objects/pool.ts'
export { findObjectPool, forgetObjectPool, listObjectPools } from './objects/pool-store.ts'
export {
  adoptObject,
  breakObject,
  isObjectReleased,
  releaseObject,
  releaseObjectsOf,
  releaseOtherObjects,
} from './objects/release.ts'
export type { ObjectReport } from './objects/round.ts'
export {
  countObjects,
  findObject,
  hasReleasingObjects,
  listAssignedObjects,
  listLooseObjects,
  listObjects,
  listOwnedObjects,
  retireObject,
} from './objects/store.ts'
export { type Arrivals, joinArrivals } from './port/arrivals.ts'
export { chooseBlock } from './port/blocks.ts'
export type { PortCover } from './port/cover.ts'
export { AllocationError } from './port/error.ts'
export { type Limits, withFileLock, withinLimits } from './port/lock.ts'
export type { Owner as AddressOwner, PortAddress, Wish as AddressWish } from './port/plan.ts'
export { openPortPool, type PortPool } from './port/pool.ts'
export {
  findKnownPort,
  findLookup,
  forgetLookup,
  forgetPort,
  type HolderSettings,
  type KnownPort,
  listIntents,
  listKnownPorts,
  type PortSettings,
  putLookup,
} from './port/port-store.ts'
export { adoptAddress, isReleased, releaseAddress, releaseOthers, releaseOwner } from './port/release.ts'
export type { PortNeutron, RoundReport } from './port/round-options.ts'
export {
  listAssignedAddresses,
  listOwnedAddresses,
  listPortAddresses,
  listPortsReleasing,
  listQuarantined,
  listUnreleased,
} from './port/store.ts'
export type { Probe as PortProbe } from './port/wire.ts'
export * from './ranges.ts'
export * from './reservations.ts'
export { addressesOfBlock, blockOf, coverOf } from './shared/cover.ts'
export { type ListReport, openSharedList, type SharedList } from './shared/list.ts'
export { pairsDriver } from './shared/pairs.ts'
export { routeNeed, routesDriver } from './shared/routes.ts'
export {
  isNeedMet,
  type KnownList,
  type ListKey,
  type ListKind,
  type ListSettings,
  listEntries,
  listKnownLists,
} from './shared/store.ts'
export { findOtherIpvlanMode, firstFreeRoutingTable, type IpvlanMode } from './trace-index.ts'
export { lateFor } from './waiters.ts'
