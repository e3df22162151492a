// SPDX-License-Identifier: Apache-2.0

import type { HostContext } from './context.ts'
import { type OwnedLink, removeLinks } from './links.ts'
import {
  attachVethHost,
  detachVethHost,
  findVethHosts,
  removeVethHostRulesOf,
  surveyVethHost,
  type VethHostTraces,
} from './veth-host.ts'
import { checkVethHost, type Expected } from './veth-host-check.ts'
import {
  addVethHostRules,
  checkVethHostRules,
  forgetVethHostLink,
  removeVethHostRules,
  type VethHostRules,
} from './veth-host-firewall.ts'
import type { VethHostPod } from './veth-host-state.ts'

/** What veth-host does to a node, see verbs.ts. */
export const vethHostVerbs = {
  /** What has to be known before. */
  surveyVethHost: (context: HostContext, pod: Pick<VethHostPod, 'netnsFd' | 'underlay'>) =>
    surveyVethHost(context, pod),

  /**
   * Joins a pod that has a NIC of its own to the node by a veth: pair, routes, rules, firewall elements.
   * @returns true where the rules had to be made, so that other pods' elements may be missing
   */
  attachVethHost(
    context: HostContext,
    { pod, uplink, firewall }: { pod: VethHostPod; uplink: string; firewall: VethHostRules },
  ): boolean {
    attachVethHost(context, pod, uplink)
    using undo = new DisposableStack()
    undo.defer(() => removeLinks(context, [{ name: pod.hostLink, owner: pod.owner, mac: pod.hostMac }]))
    undo.defer(() => detachVethHost(context, pod))
    const rebuilt = addVethHostRules(context.netfilter, firewall)
    undo.move()
    return rebuilt
  },

  /** Takes everything away but the link, which may go later. */
  detachVethHost(
    context: HostContext,
    { traces, firewall, netnsFd }: { traces: VethHostTraces; firewall: VethHostRules; netnsFd: number | undefined },
  ): void {
    try {
      removeVethHostRules(context.netfilter, firewall)
    } finally {
      detachVethHost(context, { ...traces, netnsFd })
    }
  },

  /** What a pod left on the node, found by its links and the rules that name them. */
  findVethHosts: (context: HostContext, { links }: { links: readonly OwnedLink[] }) => findVethHosts(context, links),

  /** Removes all rules of ours that name the link, of either kind. */
  forgetVethHostLink(context: HostContext, { link }: { link: string }): void {
    removeVethHostRulesOf(context, link)
    forgetVethHostLink(context.netfilter, link)
  },

  /** The differences between a pod and what its ADD made. */
  checkVethHost: (
    context: HostContext,
    { pod, uplink, firewall }: { pod: Expected; uplink: string; firewall: VethHostRules },
  ): string[] => [...checkVethHost(context, pod, uplink), ...checkVethHostRules(context.netfilter, firewall)],

  /** Puts pods back into rules that were made again. */
  addVethHostRules(context: HostContext, { pods }: { pods: readonly VethHostRules[] }): void {
    for (const pod of pods) addVethHostRules(context.netfilter, pod)
  },
}
