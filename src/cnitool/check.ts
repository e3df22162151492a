// SPDX-License-Identifier: Apache-2.0

import { checkNetworkList } from '#cni'
import type { Invocation } from './call.ts'

/** Compares the attachment with the result of its `add`. */
export async function check({ list, attachment, runtime }: Invocation): Promise<string> {
  await checkNetworkList(list, attachment, runtime)
  return ''
}
