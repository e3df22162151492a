// SPDX-License-Identifier: Apache-2.0

// rtnetlink: links, addresses, routes, rules and neighbours as the kernel's tables name them, each with the requests
// that make, change, remove and list it. Values in, request out: nothing is sent here, and no policy lives here.

export * from './address.ts'
export * from './altname.ts'
export { BR_STATE_FORWARDING } from './kinds/bridge.ts'
export { type IpvlanMode, ipvlanFlags, ipvlanModes } from './kinds/ipvlan.ts'
export { type MacvlanMode, macvlanModes } from './kinds/macvlan.ts'
export * from './link.ts'
export * from './neighbour.ts'
export * from './route.ts'
export * from './rule.ts'
export * from './saved.ts'
export * from './vlan.ts'
