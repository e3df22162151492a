// SPDX-License-Identifier: Apache-2.0

import { type Deadline, deadlineIn } from '#base'
import { CniError } from '#cni'

// What commands have in common.

const SECONDS_MAX = 3600

/** Seconds of an option. @param what the command does, for the error @throws {Error} */
export function secondsOf(option: string, text: string, what: string): number {
  const seconds = Number(text)
  if (seconds >= 1 && seconds <= SECONDS_MAX) return seconds
  throw new Error(`Cannot ${what}: ${option} is "${text}", want 1 to ${SECONDS_MAX} seconds`)
}

/** The time that `--timeout` gives a command. @throws {Error} */
export const limitsOf = (timeout: string, what: string): { readonly deadline: Deadline } => ({
  deadline: deadlineIn(secondsOf('--timeout', timeout, what) * 1000),
})

/** An error in one line, with what the user can do where that is known. */
export function textOf(error: unknown): string {
  if (error instanceof CniError && error.details !== undefined) return `${error.message}; ${error.details}`
  return error instanceof Error ? error.message : String(error)
}
