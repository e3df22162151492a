// SPDX-License-Identifier: Apache-2.0

import { closeSync } from 'node:fs'
import { type Attachment, findAttachment, listAttachments, tryEnterLane } from '#allocator'
import { parsePrefix, tryParseMac } from '#base'
import type { Result } from '#cni'
import { findNetnsPaths, identifyNetns, tryOpenNetns, tryOpenSameNetns } from '#host'
import { delRecorded, findOwnPlugin, OWNER_PREFIX, type World } from '#plugins'

/** An attachment younger than this may be one whose link is still on its way. */
const AGE_MS_MIN = 5_000

/** Releases side by side: one that a foreign IPAM keeps waiting must not hold up the others. */
const RELEASES_MAX = 8

/** Remembers what was seen dead once: only what is seen so twice is released. */
export type Suspects = Set<string>

export type Released = { readonly attachment: Attachment; readonly why: string; readonly error?: unknown }

const nameOf = ({ network, containerId, ifName, type, changedMs }: Attachment) =>
  JSON.stringify([network, containerId, ifName, type, changedMs])

/**
 * Brings the records in line with the node: finishes what a crash cut short, and releases what no DEL will ever come for
 * (after a power cut, or when the runtime forgot). Never trusts one observation for that.
 *
 * @param inLane runs work while no call of the same attachment runs
 * @returns what was released, or could not be
 */
export async function reconcile(
  world: World,
  suspects: Suspects,
  inLane: <T>(attachment: Attachment, work: () => Promise<T>) => Promise<T>,
): Promise<Released[]> {
  const released: Released[] = []
  const links = new Set((await world.host.listOwnedLinks({ prefix: OWNER_PREFIX })).map(link => link.name))
  const seen: Suspects = new Set()
  type Dead = { attachment: Attachment; why: string }
  const dead: Dead[] = []
  const busy: Dead[] = []
  const pathless: Attachment[] = []
  for (const attachment of listAttachments(world.journal)) {
    const why = whyDead(attachment, world.bootId, links)
    if (why === GONE) pathless.push(attachment)
    else if (why !== undefined) dead.push({ attachment, why })
  }
  for (const attachment of await findGone(pathless, world)) {
    if (suspects.has(nameOf(attachment))) dead.push({ attachment, why: GONE })
    else seen.add(nameOf(attachment))
  }
  async function work(): Promise<void> {
    for (let next = dead.shift(); next !== undefined; next = dead.shift()) {
      const { attachment, why } = next
      const done = await inLane(attachment, () => release(world, attachment, why))
      if (done === 'busy') busy.push(next)
      else if (done !== undefined) released.push(done)
    }
  }
  await Promise.all(Array.from({ length: RELEASES_MAX }, work))
  // Another of these releases may have been in their lane, for another network. What is busy still is another process's.
  for (const { attachment, why } of busy) {
    const done = await inLane(attachment, () => release(world, attachment, why))
    if (done !== undefined && done !== 'busy') released.push(done)
  }
  suspects.clear()
  for (const name of seen) suspects.add(name)
  return released
}

/** False where a call that had the lane before has changed it: it is not what was judged. */
function isUnchanged({ journal }: World, attachment: Attachment): boolean {
  const now = findAttachment(journal, attachment)
  return now !== undefined && now.state === attachment.state && now.changedMs === attachment.changedMs
}

async function release(world: World, attachment: Attachment, why: string): Promise<Released | 'busy' | undefined> {
  // Held by a process of mode "standalone" that is at work on it: not dead at all.
  using lane = tryEnterLane(world.dataDir, attachment)
  if (lane === undefined) return 'busy'
  if (!isUnchanged(world, attachment)) return undefined
  try {
    await delRecorded(attachment, world.bootId, async call => findOwnPlugin(attachment.type)?.del(call, world))
    return { attachment, why }
  } catch (error) {
    return { attachment, why, error }
  }
}

const GONE = 'its namespace is gone'

/** Undefined: alive, or not to be judged yet. */
function whyDead(attachment: Attachment, bootId: string, links: ReadonlySet<string>): string | undefined {
  if (attachment.bootId !== bootId) return 'the machine was started again'
  if (attachment.state === 'deleting') return 'its DEL was not finished'
  if (Date.now() - attachment.changedMs < AGE_MS_MIN) return undefined
  if (attachment.state === 'adding') return 'its ADD was not finished'
  // The kernel removes the pair with the pod's namespace; and the path alone proves nothing.
  return links.has(hostLinkOf(attachment)) || netnsIsThere(attachment) ? undefined : GONE
}

/**
 * Of attachments whose path leads to their namespace no more, those whose namespace lives by nobody else either: the first
 * process of a container may be gone while others are in there, and whoever has a mount or a descriptor keeps it as well.
 */
async function findGone(pathless: readonly Attachment[], world: World): Promise<Attachment[]> {
  if (pathless.length === 0) return []
  const paths = await findNetnsPaths(pathless.flatMap(({ netnsInode }) => netnsInode ?? []))
  const alive = await Promise.all(
    pathless.map(attachment => livesAt(paths.get(attachment.netnsInode ?? -1), attachment, world)),
  )
  return pathless.filter((_, index) => !alive[index])
}

/** The kernel gives the number of a namespace that is gone to the next one: it is told by what the attachment has there. */
async function livesAt(path: string | undefined, attachment: Attachment, { host }: World): Promise<boolean> {
  const { netnsDevice: device, netnsInode: inode, ifName } = attachment
  if (path === undefined || device === undefined || inode === undefined) return false
  let netnsFd: number | undefined
  try {
    netnsFd = tryOpenSameNetns(path, { device, inode })
  } catch {
    return true // it cannot be looked at: that proves nothing
  }
  if (netnsFd === undefined) return false
  try {
    // Of an earlier release's attachments the journal does not know what there was answered.
    if (attachment.result === '') return true
    const { interfaces = [], ips = [] } = JSON.parse(attachment.result) as Result
    const position = interfaces.findIndex(({ name, sandbox }) => name === ifName && (sandbox ?? '') !== '')
    const own = ips.filter(each => each.interface === undefined || each.interface === position)
    const mac = tryParseMac(interfaces[position]?.mac ?? '')
    // A device without a link of the kernel's (DPDK) shows nothing.
    if (mac === undefined && own.length === 0) return true
    return await host.hasPodLink({ netnsFd, ifName, mac, addresses: own.map(({ address }) => parsePrefix(address)) })
  } finally {
    closeSync(netnsFd)
  }
}

const hostLinkOf = ({ traces }: Attachment): string =>
  (JSON.parse(traces) as { hostLink?: string } | null)?.hostLink ?? ''

function netnsIsThere({ netns, netnsDevice, netnsInode }: Attachment): boolean {
  let fd: number | undefined
  try {
    fd = tryOpenNetns(netns)
  } catch {
    return true // it cannot be looked at: that proves nothing
  }
  if (fd === undefined) return false
  try {
    const { device, inode } = identifyNetns(fd)
    return device === netnsDevice && inode === netnsInode
  } finally {
    closeSync(fd)
  }
}
