# SPDX-License-Identifier: Apache-2.0
*** Settings ***
Suite Setup         Setup
Suite Teardown      Teardown
Test Setup          Reset Emulation
Test Teardown       Run Keywords    Test Teardown    AND    Forget Device
Resource            ${RENODEKEYWORDS}
Resource            ${CURDIR}/monitor.resource


*** Test Cases ***
HW-T4 The End Of A Lease Halts The Payload
    Start A Device    duration=10000
    Gate Is Closed
    ${batches}=    Told By The Payload    batches
    Should Be Equal As Integers    ${batches}    0    it worked without a lease
    Obtain Lease
    Gate Is Open
    Payload Works
    Gate Closes    12
    Failsafe Rises
    Payload Stands Still
    Status Is    phase    FAILSAFE
    ${log}=    Read Log
    Log Must Name    ${log}    LEASE_ISSUED    LEASE_EXPIRED    FAILSAFE_TRIGGERED

HW-T5 A Renewal Extends A Lease
    Start A Device    duration=20000
    Obtain Lease
    Gate Is Open
    Run For    8
    Obtain Lease
    Status Is    renewals    1
    Assert And Hold LED State    true    timeoutAssert=0    timeoutHold=12.1    testerId=${VALID}    pauseEmulation=true
    Payload Works
    Status Is    phase    ACTIVE

HW-T6 A Denial Fails Safe
    Start A Device
    Obtain Lease
    Gate Is Open
    Payload Works
    Deny
    Gate Closes    0.2
    Failsafe Rises
    Payload Stands Still
    Status Is    phase    FAILSAFE
    Status Is    reason    VALIDATOR_DENIED
