// SPDX-License-Identifier: Apache-2.0

import type { World } from '../../world.ts'

/** Tells who released something that its cloud has not heard of it: DEL succeeds, and the next call of the network tries again. */
export const warnOfRelease = ({ warn }: Pick<World, 'warn'>, what: string, error: unknown): void =>
  warn?.(
    `Released, but not told to the cloud yet: ${what}: ${error instanceof Error ? error.message : String(error)}; ` +
      'the next call of any pod tries it again',
  )
