// SPDX-License-Identifier: Apache-2.0

// Chains of upstream's plugins and ours, called one after another as a runtime does.

import { join } from 'node:path'
import {
  cniBin,
  makeNetns,
  type Netns,
  type Node,
  type Outcome,
  peers,
  resultOf,
  skip,
  start,
  type Verb,
} from './nodelab.ts'

/** Where upstream's executables are. */
export const THEIRS = peers ?? ''
export const DEFAULTS = [{ dst: '0.0.0.0/0' }, { dst: '::/0' }]
/** Why such chains cannot be tested here; false where they can. */
export const noPeers = skip || (peers === undefined && 'needs PEERS_DIR')

/** One plugin of a chain: whose executable (in `directory`), and its configuration. Its IPAM is found on `path`. */
export type Link = { theirs?: boolean; type: string; path?: readonly string[]; directory?: string } & {
  [key: string]: unknown
}
export type Pod = { netns: Netns; containerId: string; ifName?: string }
// biome-ignore lint/suspicious/noExplicitAny: the shape of a result is what the tests look at
export type ChainResult = any

let containers = 0
/** Upstream's tuning keeps its data by this name, for all nodes of the machine. */
export const newPod = (): Pod => ({ netns: makeNetns('pod'), containerId: `chain${process.pid}x${containers++}` })

/** Calls one plugin as a runtime does. */
export function call(node: Node, verb: Verb, pod: Pod, link: Link, more: object = {}): Promise<Outcome> {
  const { theirs = false, path = [cniBin(), THEIRS], directory = theirs ? THEIRS : cniBin(), ...config } = link
  const enter = theirs || node.mode === 'standalone' ? ['/usr/bin/nsenter', `--net=${node.path}`] : []
  return start([...enter, join(directory, link.type)], {
    env: {
      PATH: process.env['PATH'] ?? '',
      ...node.env,
      CNI_COMMAND: verb,
      CNI_CONTAINERID: pod.containerId,
      CNI_NETNS: pod.netns.path,
      CNI_IFNAME: pod.ifName ?? 'eth0',
      CNI_PATH: path.join(':'),
    },
    stdin: JSON.stringify({ cniVersion: '1.0.0', name: 'net', ...config, ...more }),
  }).outcome
}

/** ADD in order, each with the result before. @returns the last */
export async function addChain(node: Node, pod: Pod, chain: readonly Link[]): Promise<ChainResult> {
  let result: ChainResult
  for (const link of chain) result = resultOf(await call(node, 'ADD', pod, link, result && { prevResult: result }))
  return result
}

export async function checkChain(node: Node, pod: Pod, chain: readonly Link[], prevResult: ChainResult): Promise<void> {
  for (const link of chain) resultOf(await call(node, 'CHECK', pod, link, { prevResult }))
}

export async function delChain(node: Node, pod: Pod, chain: readonly Link[], prevResult: ChainResult): Promise<void> {
  for (const link of chain.toReversed()) resultOf(await call(node, 'DEL', pod, link, { prevResult }))
}
