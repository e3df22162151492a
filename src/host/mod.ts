// SPDX-License-Identifier: Apache-2.0

// host: verbs on this machine: links, addresses, routes, neighbours, firewall, namespaces, settings.
// Verbs are synchronous functions over a thread's sockets (verbs.ts); `Host` is the same verbs as promises, run by this
// thread, or by another where they block. Nothing here knows CNI or OpenStack.

export { readBootId } from './boot.ts'
export type { BridgedPod, FoundBridge, GatewayWanted } from './bridge.ts'
export type { BridgedExpectation } from './bridge-check.ts'
export type { BridgedFirewall } from './bridge-firewall.ts'
export { type Child, type ChildInfo, chooseLinkIndex, type Master, makesChild } from './child.ts'
export { HostContext } from './context.ts'
export type { FirewallPod } from './firewall.ts'
export * as firewall from './firewall.ts'
export { type Host, inlineHost, threadedHost } from './host.ts'
export type { OwnedLink } from './links.ts'
export { linkNetns, listNetns, makeNetns, netnsPath, removeNetns, unlinkNetns } from './named-netns.ts'
export * from './netns.ts'
export { findNetnsPath, findNetnsPaths } from './netns-paths.ts'
export { type FoundNic, type MovedNic, movesNic, type NicSelector } from './nic.ts'
export type { NicState } from './nic-state.ts'
export { makesPair, type Pair } from './pair.ts'
export type { PodLink, PodLinkExpectation, PodLinkRoute, PodLinkState, SettledAddresses } from './pod-link.ts'
export * as podLink from './pod-link.ts'
export * as portmap from './portmap.ts'
export { type HostPort, type HostPorts, keepsFlows, portProtocols, type UnknownPorts } from './portmap.ts'
export { type Condition, fitsName } from './portmap-rules.ts'
export {
  commonNextHops,
  type NextHop,
  nextHopFor,
  nextHops,
  type PodRoute,
  type RoutedPod,
} from './routed.ts'
export { makeScratchNode, SCRATCH_UPLINK, type ScratchNode } from './scratch.ts'
export type { Survey, SurveyLink, SurveyRoute, SurveyRule } from './survey.ts'
export { ensureSysctl, tryReadSysctl } from './sysctl.ts'
export { findBusDevice, findKernelDevice, isPlugged } from './sysfs.ts'
export type { Uplink } from './uplink.ts'
export type { AttachRoutedPod, FirewallPart } from './verbs.ts'
export { claimsTable } from './veth-host.ts'
export type { VethHostRules } from './veth-host-firewall.ts'
export { DEFAULT_MARK } from './veth-host-ruleset.ts'
export { nextHopOf, type VethHostPod } from './veth-host-state.ts'
