// SPDX-License-Identifier: Apache-2.0

import { closeSync, existsSync, readdirSync, readFileSync } from 'node:fs'
import { type Attachment, type Journal, listAttachments } from '#allocator'
import { identifyNetns, type NetnsIdentity, netnsPath, tryOpenNetns } from '#host'
import { podOf } from './pod.ts'

/** A container's namespace, by whatever name it was given. */
export type Target = Disposable & {
  readonly path: string
  /** Undefined where it is gone, and the journal alone knows of it. */
  readonly netnsFd: number | undefined
  readonly identity: NetnsIdentity | undefined
  /** What the journal knows of attachments in it. */
  readonly attachments: readonly Attachment[]
}

/** Shorter ones fit too many. */
const CONTAINER_ID_LENGTH_MIN = 4

/**
 * Finds a namespace by path, by name (`ip netns`), by the PID of a process in it, by a container's id or its beginning,
 * by `POD` or `NAMESPACE/POD`. In this order.
 * @param journal undefined where there is none
 * @throws {Error} where nothing, or more than one thing, is meant
 */
export function openTarget(text: string, journal: Journal | undefined): Target {
  const path = pathOf(text)
  if (path !== undefined) return open(path, text, journal)
  const known = journal === undefined ? [] : attachmentsOf(text, listAttachments(journal))
  const containers = [...new Set(known.map(({ containerId }) => containerId))]
  if (containers.length > 1)
    throw new Error(`Cannot tell which container "${text}" is: ${containers.join(', ')}. Name more of it`)
  if (known[0] !== undefined) return open(known[0].netns, text, journal, known)
  const pid = findProcess(text)
  if (pid !== undefined) return open(processPath(pid), text, journal)
  throw new Error(
    `Cannot find "${text}": it is no path, no name of ip netns, no process, and no container or pod of the journal`,
  )
}

const processPath = (pid: number | string) => `/proc/${pid}/ns/net`

function pathOf(text: string): string | undefined {
  if (text.startsWith('/')) return text
  if (!text.includes('/') && existsSync(netnsPath(text))) return netnsPath(text)
  return /^\d+$/.test(text) && existsSync(`/proc/${text}`) ? processPath(text) : undefined
}

function open(path: string, text: string, journal: Journal | undefined, known?: readonly Attachment[]): Target {
  const fd = tryOpenNetns(path)
  if (fd === undefined && known === undefined) throw new Error(`Cannot open "${text}": ${path} is no network namespace`)
  const identity = fd === undefined ? undefined : identifyNetns(fd)
  const isHere = ({ netnsDevice, netnsInode }: Attachment) =>
    identity !== undefined && netnsDevice === identity.device && netnsInode === identity.inode
  const close = () => fd !== undefined && closeSync(fd)
  // The path is another container's by now.
  if (known !== undefined && !known.some(isHere)) {
    close()
    return { path, netnsFd: undefined, identity: undefined, attachments: known, [Symbol.dispose]: () => {} }
  }
  const attachments = journal === undefined ? [] : listAttachments(journal).filter(isHere)
  return { path, netnsFd: fd, identity, attachments, [Symbol.dispose]: close }
}

function attachmentsOf(text: string, all: readonly Attachment[]): Attachment[] {
  const byContainer = all.filter(
    ({ containerId }) =>
      containerId === text || (text.length >= CONTAINER_ID_LENGTH_MIN && containerId.startsWith(text)),
  )
  const exact = byContainer.filter(({ containerId }) => containerId === text)
  if (byContainer.length > 0) return exact.length > 0 ? exact : byContainer
  return all.filter(attachment => {
    const pod = podOf(attachment)
    return pod !== undefined && (pod.name === text || `${pod.namespace}/${pod.name}` === text)
  })
}

/** A container that no attachment of ours is in: container runtimes name their control groups after it. */
function findProcess(text: string): number | undefined {
  if (!/^[0-9a-f]{12,64}$/.test(text)) return undefined
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number)
    .find(pid => containerOf(pid)?.startsWith(text))
}

/** The id of the container that a process is in, as its control group tells it; undefined for none. */
export function containerOf(pid: number): string | undefined {
  try {
    return /[0-9a-f]{64}/.exec(readFileSync(`/proc/${pid}/cgroup`, 'latin1'))?.[0]
  } catch {
    return undefined
  }
}
