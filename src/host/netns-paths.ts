// SPDX-License-Identifier: Apache-2.0

import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'

// A network namespace lives as long as a thread is in it, a file system shows it, or a descriptor is open on it. The kernel
// finds none by its number: what leads to it has to be looked for.

/** Processes looked at in one go: others have their turn in between. */
const PROCESSES_PER_TURN = 4

/**
 * Paths that lead to network namespaces, by their inodes; what leads nowhere any more is left out. Looks at threads, mounts
 * and descriptors of all processes but this one, which may hold namespaces of the dead. It takes half a millisecond and
 * more for each process: for what seems to be gone.
 */
export async function findNetnsPaths(inodes: Iterable<number>): Promise<Map<number, string>> {
  const wanted = new Set(inodes)
  const found = new Map<number, string>()
  const note = (text: string, path: string) => {
    const inode = Number(/^net:\[(\d+)\]$/.exec(text)?.[1])
    if (wanted.delete(inode)) found.set(inode, path)
  }
  const mountNamespaces = new Set<string>()
  const own = linkOf('/proc/self/ns/mnt')
  const lookAtMounts = (directory: string) => {
    const namespace = linkOf(`${directory}/ns/mnt`)
    if (mountNamespaces.has(namespace)) return
    mountNamespaces.add(namespace)
    for (const { root, point } of mountsOf(directory))
      note(root, namespace === own ? point : `${directory}/root${point}`)
  }
  lookAtMounts('/proc/self')
  // What is found nearly always is looked at first.
  const looks: readonly ((directory: string) => void)[] = [
    directory => note(linkOf(`${directory}/ns/net`), `${directory}/ns/net`),
    lookAtMounts,
    directory => {
      for (const thread of namesIn(`${directory}/task`))
        note(linkOf(`${directory}/task/${thread}/ns/net`), `${directory}/task/${thread}/ns/net`)
      for (const fd of namesIn(`${directory}/fd`)) note(linkOf(`${directory}/fd/${fd}`), `${directory}/fd/${fd}`)
    },
  ]
  for (const look of looks) {
    const processes = namesIn('/proc').filter(name => /^\d+$/.test(name) && Number(name) !== process.pid)
    for (const [index, pid] of processes.entries()) {
      if (wanted.size === 0) return found
      if (index % PROCESSES_PER_TURN === 0) await nextTurn()
      look(`/proc/${pid}`)
    }
  }
  return found
}

const asked = new Set<number>()
let running: Promise<unknown> = Promise.resolve()
let next: Promise<Map<number, string>> | undefined

/**
 * The same for one namespace, and for many that ask at once: who comes while one search runs shares the next, so that a
 * hundred containers which end together cost two.
 */
export async function findNetnsPath(inode: number): Promise<string | undefined> {
  asked.add(inode)
  next ??= running.then(() => {
    const wanted = [...asked]
    asked.clear()
    next = undefined
    return findNetnsPaths(wanted)
  })
  running = next.catch(() => {})
  return (await next).get(inode)
}

/** A process may end while it is looked at. */
function attempt<T>(look: () => T, otherwise: T): T {
  try {
    return look()
  } catch {
    return otherwise
  }
}

const namesIn = (directory: string): string[] => attempt(() => readdirSync(directory), [])
const linkOf = (path: string): string => attempt(() => readlinkSync(path), '')

/** What is mounted where (proc_pid_mountinfo(5)); of a namespace's mount the root is its name. */
const mountsOf = (directory: string): { root: string; point: string }[] =>
  attempt(() => readFileSync(`${directory}/mountinfo`, 'utf8'), '')
    .split('\n')
    .map(line => line.split(' '))
    .map(([, , , root = '', point = '']) => ({ root, point: decodeOctal(point) }))

const decodeOctal = (text: string): string =>
  text.replace(/\\(\d{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
