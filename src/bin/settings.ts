// SPDX-License-Identifier: Apache-2.0

// What every command knows; it loads nothing.

import { readFileSync } from 'node:fs'

/** The file that tells shims what to do (shim/shim.c), unless they are told of another. */
export const SETTINGS = '/etc/mooring/mode'
/** Where the agent listens unless told otherwise. */
export const SOCKET = '/run/mooring/agent.sock'
/** Of journal and spool, unless told otherwise. */
export const DATA_DIR = '/var/lib/mooring'

export const modes = ['standalone', 'agent'] as const

/** What an operator may choose of them; the rest follows from the release. */
export type Settings = { readonly mode: (typeof modes)[number]; readonly socket: string; readonly dataDir: string }

/** What a file has, and for what it does not have what holds without it. @throws {Error} where it is there and cannot be read */
export function readSettings(file: string): Settings {
  const lines = new Map(linesOf(file).map(line => [line.split('=', 1)[0], line.slice(line.indexOf('=') + 1)]))
  return {
    mode: modes.find(each => each === lines.get('mode')) ?? 'standalone',
    socket: lines.get('socket') ?? SOCKET,
    dataDir: lines.get('data') ?? DATA_DIR,
  }
}

function linesOf(file: string): string[] {
  try {
    return readFileSync(file, 'utf8').split('\n')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}
