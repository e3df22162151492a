// SPDX-License-Identifier: Apache-2.0

import { statusNetworkList } from '#cni'
import type { Invocation } from './call.ts'

/** Asks the plugins whether they could serve an `add`. */
export async function status({ list, runtime }: Invocation): Promise<string> {
  await statusNetworkList(list, runtime)
  return ''
}
