// SPDX-License-Identifier: Apache-2.0

import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { tryLock } from '#libc'

/** A process that the demo started; the start time tells it from another one that got its number later. */
export type Started = { readonly what: string; readonly pid: number; readonly startTime: string }

export type Pod = { readonly name: string; readonly netns: string; readonly machine: string }

/** Everything that must be removed again. It is on disk before it is in the world, so that a killed demo can be cleaned up. */
export type State = {
  /** True: it stands because the user asked for that. */
  kept: boolean
  /** The cloud in clouds.yaml, undefined: the simulated one. */
  readonly cloud: string | undefined
  /** The clouds.yaml that was in force. */
  cloudsFile: string | undefined
  /** The servers that carry pods. */
  machines: { readonly name: string; readonly netns: string }[]
  /** Named network namespaces that the demo made. */
  namespaces: string[]
  pods: Pod[]
  floatingIps: string[]
  processes: Started[]
}

/** A demo's name gives it its directory and the names of its namespaces: two of them do not meet. */
export type Place = Disposable & {
  readonly name: string
  readonly directory: string
  readonly file: (...parts: string[]) => string
  save(state: State): void
  load(): State | undefined
  /** Forgets the state, and all files of the demo. The directory goes when the place is given up. */
  remove(): void
}

const NAME = /^[a-z][a-z0-9-]{0,30}$/

/** Tells a demo's directory from any other below /run: all of it is removed in the end. */
const LOCK = 'demo.lock'

/** Takes the place of a demo, alone on this machine. @throws {Error} while another process has it, or something else its name */
export function takePlace(name: string): Place {
  if (!NAME.test(name))
    throw new Error(
      `Cannot call the demo "${name}": want a small letter, then small letters, digits and dashes, 31 in all at most`,
    )
  const directory = join('/run', name)
  const isNew = mkdirSync(directory, { recursive: true, mode: 0o700 }) !== undefined
  if (!isNew && !existsSync(join(directory, LOCK)))
    throw new Error(
      `Cannot use ${directory}: it is there already, and is none of a demo. Remedy: choose another --name, or remove it where it is empty: a demo was killed before it began`,
    )
  const fd = openSync(join(directory, LOCK), 'a', 0o600)
  if (!tryLock(fd)) {
    closeSync(fd)
    throw new Error(
      `Cannot start: another demo called "${name}" is running. Remedy: wait for it, or choose another --name`,
    )
  }
  const file = (...parts: string[]) => join(directory, ...parts)
  return {
    name,
    directory,
    file,
    save(state) {
      writeFileSync(file('state.next'), JSON.stringify(state, undefined, 1), { mode: 0o600 })
      renameSync(file('state.next'), file('state.json'))
    },
    load: () =>
      existsSync(file('state.json')) ? (JSON.parse(readFileSync(file('state.json'), 'utf8')) as State) : undefined,
    remove() {
      for (const each of readdirSync(directory)) if (each !== LOCK) rmSync(file(each), { recursive: true, force: true })
    },
    [Symbol.dispose]() {
      if (!existsSync(file('state.json'))) rmSync(directory, { recursive: true, force: true })
      closeSync(fd)
    },
  }
}
