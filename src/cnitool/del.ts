// SPDX-License-Identifier: Apache-2.0

import { delNetworkList } from '#cni'
import type { Invocation } from './call.ts'

/** Takes the attachment back; the namespace may be gone. */
export async function del({ list, attachment, runtime }: Invocation): Promise<string> {
  await delNetworkList(list, attachment, runtime)
  return ''
}
