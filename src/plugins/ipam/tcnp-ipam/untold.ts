// SPDX-License-Identifier: Apache-2.0

import type { Call } from '#cni'
import type { World } from '../../world.ts'
import { parseConfig } from './config.ts'

/** The cloud that a call's configuration names, with its credentials at hand from now on; or why it does not lead there. */
export async function tryBring(
  call: Call,
  world: World,
): Promise<{ readonly access: string } | { readonly error: unknown }> {
  try {
    const { cloud, neutronConf } = parseConfig(call.config)
    return await world.clouds.open(cloud, { dataDir: neutronConf.dataDir })
  } catch (error) {
    return { error }
  }
}

/** Tells who released something that its cloud has not heard of it: DEL succeeds, and the next call of the network tries again. */
export const warnOfRelease = ({ warn }: Pick<World, 'warn'>, what: string, error: unknown): void =>
  warn?.(
    `Released, but not told to the cloud yet: ${what}: ${error instanceof Error ? error.message : String(error)}; ` +
      'the next call of any pod tries it again',
  )
