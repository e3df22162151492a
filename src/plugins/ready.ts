// SPDX-License-Identifier: Apache-2.0

import { CniError, codes } from '#cni'

/** For STATUS: looks at what an ADD would refuse, as an ADD does. @throws {CniError} 50 with the words of the refusal */
export async function requireAvailable(look: () => unknown): Promise<void> {
  try {
    await look()
  } catch (error) {
    throw error instanceof CniError
      ? new CniError(codes.notAvailable, error.message, { details: error.details })
      : error
  }
}
