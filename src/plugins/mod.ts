// SPDX-License-Identifier: Apache-2.0

// plugins: the CNI plugins, main/ makes interfaces, ipam/ gives addresses, meta/ changes what others made.
// A plugin decides; the host's verbs, the allocator and the OpenStack client act. It meets the node and the cloud through
// its `World` only.

export { INSTALLED, parseHashes } from './installed.ts'
export { canReserve, settleByHand } from './ipam/tcnp-ipam/by-hand.ts'
export { type NeutronUse, neutronUseOf } from './ipam/tcnp-ipam/neutron-use.ts'
export { type DrainedPool, drainObjectPools } from './ipam/tcnp-ipam/object-pools.ts'
export {
  bringCredentials,
  type DrainedPort,
  drainPorts,
  listWaitingForCredentials,
  startPorts,
} from './ipam/tcnp-ipam/ports.ts'
export { listOwnedPorts, type OwnerMark, readDescription } from './ipam/tcnp-ipam/separate/owner-mark.ts'
export { type CloudReference, type CloudSessions, openSessions } from './ipam/tcnp-ipam/sessions.ts'
export { useLanes } from './lanes.ts'
export { holdNamespaces } from './main/host-device/host-device.ts'
export { OWNER_PREFIX } from './pair.ts'
export { callOf, delRecorded, withoutSecrets } from './record.ts'
export { findFaultsOf, findOwnPlugin, keepFirewall, plugins, TAKEN_PREFIX, worldOf } from './registry.ts'
export { isShim } from './shim.ts'
export { toCniError } from './to-cni-error.ts'
export type { World } from './world.ts'
