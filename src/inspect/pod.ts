// SPDX-License-Identifier: Apache-2.0

import type { Attachment } from '#allocator'
import { callOf } from '#plugins'

/** The pod of an attachment, as the runtime named it in CNI_ARGS; undefined where it did not. */
export function podOf(attachment: Attachment): { namespace: string; name: string } | undefined {
  const args = new Map(
    callOf(attachment, 'CHECK')
      .args.split(';')
      .map(pair => pair.split('=', 2) as [string, string | undefined]),
  )
  const name = args.get('K8S_POD_NAME')
  return name === undefined ? undefined : { namespace: args.get('K8S_POD_NAMESPACE') ?? '', name }
}
