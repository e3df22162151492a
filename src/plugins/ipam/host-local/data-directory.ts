// SPDX-License-Identifier: Apache-2.0

import { accessSync, constants, statfsSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { CniError, codes } from '#cni'

/**
 * Tells whether reservations could be made in a directory, or in one that would have to be made, without making anything.
 *
 * @throws {CniError} 50 with the reason
 */
export function checkDataDirectory(directory: string): void {
  const nearest = nearestExisting(directory)
  try {
    if (!statSync(nearest).isDirectory()) throw unavailable(directory, `${nearest} is not a directory`)
    accessSync(nearest, constants.R_OK | constants.W_OK | constants.X_OK)
  } catch (error) {
    if (error instanceof CniError) throw error
    throw unavailable(directory, (error as Error).message, error)
  }
  const { blocks, bfree, files, ffree } = statfsSync(nearest)
  // File systems without a limit tell a total of zero.
  if (blocks > 0 && bfree === 0) throw unavailable(directory, `no space is left on the file system of ${nearest}`)
  if (files > 0 && ffree === 0) throw unavailable(directory, `no inode is left on the file system of ${nearest}`)
}

function nearestExisting(directory: string): string {
  for (let path = directory; ; path = dirname(path))
    if (path === dirname(path) || statSync(path, { throwIfNoEntry: false }) !== undefined) return path
}

const unavailable = (directory: string, reason: string, cause?: unknown) =>
  new CniError(codes.notAvailable, `Cannot reserve addresses in ${directory}: ${reason}`, {
    details: 'make ipam.dataDir a directory that can be written to',
    cause,
  })
