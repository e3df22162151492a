// SPDX-License-Identifier: Apache-2.0

import { closeSync } from 'node:fs'
import { hasJournal, type Journal, openJournal } from '#allocator'
import { type Host, HostContext, inlineHost, readBootId, tryOpenNetns } from '#host'
import { setNetworkNamespace } from '#libc'
import { openSessions, type World, worldOf } from '#plugins'

export type NodeOptions = {
  readonly dataDir: string
  /** The node's namespace, where it is not this process's (labs). */
  readonly netns?: string | undefined
}

/** The node as a command that looks at it needs it. */
export type NodeView = AsyncDisposable & {
  readonly host: Host
  /** Undefined where nothing was ever recorded: looking makes no journal. */
  readonly journal: Journal | undefined
  readonly world: World | undefined
}

/** Opens the node that the options name. @throws {Error} where the namespace is none */
export function openNode({ dataDir, netns }: NodeOptions): NodeView {
  if (netns !== undefined) enterNetns(netns)
  const stack = new AsyncDisposableStack()
  const host = inlineHost(stack.use(new HostContext()))
  const journal = hasJournal(dataDir) ? stack.use(openJournal(dataDir)) : undefined
  if (journal === undefined)
    return { host, journal, world: undefined, [Symbol.asyncDispose]: () => stack.disposeAsync() }
  const clouds = stack.use(openSessions({ dataDir, warn: message => console.error(message) }))
  const world = worldOf({ host, journal, clouds, bootId: readBootId(), longLived: false, dataDir })
  return { host, journal, world, [Symbol.asyncDispose]: () => stack.disposeAsync() }
}

/** What has to be said of a look at a node of which there are no records. */
export const journalWarnings = ({ journal }: Pick<NodeView, 'journal'>, { dataDir }: NodeOptions): string[] =>
  journal === undefined
    ? [
        `There is no journal in ${dataDir}: whose anything is, and what differs, is not known. Name the agent's --data-dir`,
      ]
    : []

/** Moves this process into a namespace for good. @throws {Error} where the path leads to none */
function enterNetns(path: string): void {
  const fd = tryOpenNetns(path)
  if (fd === undefined) throw new Error(`Cannot enter ${path}: it is no network namespace`)
  setNetworkNamespace(fd)
  closeSync(fd)
}
