// SPDX-License-Identifier: Apache-2.0

import { gcNetworkList } from '#cni'
import type { Invocation } from './call.ts'

/** Takes every attachment of the network back that the cache knows, then lets the plugins collect. */
export async function gc({ list, runtime }: Invocation): Promise<string> {
  await gcNetworkList(list, runtime, undefined)
  return ''
}
