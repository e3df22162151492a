// SPDX-License-Identifier: Apache-2.0

import { closeSync } from 'node:fs'
import { type AttachmentKey, type Journal, listAttachments } from '#allocator'
import { tryOpenNetns, tryOpenSameNetns } from '#host'
import type { World } from '../../world.ts'

/**
 * The namespaces of containers that have a NIC, held open by the agent until DEL: a NIC whose namespace dies loses what it
 * had and comes back under another name, in the machine's first namespace; a virtual one is destroyed.
 */
const held = new WeakMap<Journal, Map<string, number>>()

const nameOf = ({ network, containerId, ifName, type }: AttachmentKey) =>
  JSON.stringify([network, containerId, ifName, type])

/** Keeps the namespace of an attachment alive. A process that lives for one call cannot. */
export function holdNetns(world: World, key: AttachmentKey, netnsFd: number): void {
  if (!world.longLived) return
  const own = tryOpenNetns(`/proc/self/fd/${netnsFd}`)
  if (own === undefined) return
  releaseNetns(world, key)
  const all = held.get(world.journal) ?? new Map<string, number>()
  held.set(world.journal, all.set(nameOf(key), own))
}

/** The namespace that is held for the attachment. */
export const heldNetns = (world: World, key: AttachmentKey): number | undefined =>
  held.get(world.journal)?.get(nameOf(key))

/** Lets the namespace of an attachment go. */
export function releaseNetns(world: World, key: AttachmentKey): void {
  const own = heldNetns(world, key)
  if (own === undefined) return
  held.get(world.journal)!.delete(nameOf(key))
  closeSync(own)
}

/** After a start: holds again what attachments of `type` are in, where it lives. Disposing lets all go. */
export function holdAll(world: World, type: string): Disposable {
  for (const attachment of listAttachments(world.journal)) {
    if (attachment.type !== type || attachment.bootId !== world.bootId) continue
    const { netnsDevice: device, netnsInode: inode } = attachment
    if (device === undefined || inode === undefined) continue
    const fd = tryOpenSameNetns(attachment.netns, { device, inode })
    if (fd === undefined) continue
    holdNetns(world, attachment, fd)
    closeSync(fd)
  }
  return {
    [Symbol.dispose]() {
      for (const fd of held.get(world.journal)?.values() ?? []) closeSync(fd)
      held.delete(world.journal)
    },
  }
}
