// SPDX-License-Identifier: Apache-2.0

import { addNetworkList, encodeResult, indentJson, type Version } from '#cni'
import type { Invocation } from './call.ts'

/** Attaches the namespace to the network. @returns the result as text. */
export async function add({ list, attachment, runtime }: Invocation): Promise<string> {
  const result = await addNetworkList(list, attachment, runtime)
  return indentJson(encodeResult(result, list.cniVersion as Version))
}
