// SPDX-License-Identifier: Apache-2.0

// allocator: what is ours, and which address may be given to whom: the journal and the address pools above it.
// Pure decisions beside the stores they act on (disk, Neutron). No CNI here, and no kernel.

export * from './attachment.ts'
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
export {
  adoptObject,
  isObjectReleased,
  releaseObject,
  releaseObjectsOf,
  releaseOtherObjects,
} from './objects/release.ts'
export {
  countObjects,
  findObject,
  findObjectPool,
  forgetObjectPool,
  listAssignedObjects,
  listObjectPools,
  listObjects,
  listOwnedObjects,
} from './objects/store.ts'
export { type Arrivals, joinArrivals } from './port/arrivals.ts'
export { AllocationError } from './port/error.ts'
export { type Limits, withFileLock, withinLimits } from './port/lock.ts'
export type { Owner as AddressOwner, PortAddress } from './port/plan.ts'
export { openPortPool, type PortPool } from './port/pool.ts'
export { adoptAddress, isReleased, releaseAddress, releaseOthers, releaseOwner } from './port/release.ts'
export type { PortNeutron, RoundReport } from './port/round.ts'
export {
  findKnownPort,
  findLookup,
  forgetLookup,
  forgetPort,
  type KnownPort,
  listAssignedAddresses,
  listIntents,
  listKnownPorts,
  listOwnedAddresses,
  listPortAddresses,
  listPortsReleasing,
  listQuarantined,
  listUnreleased,
  type PortSettings,
  putLookup,
} from './port/store.ts'
export type { Probe as PortProbe } from './port/wire.ts'
export * from './ranges.ts'
export * from './reservations.ts'
