# SPDX-License-Identifier: Apache-2.0
*** Settings ***
Suite Setup         Setup
Suite Teardown      Teardown
Test Setup          Reset Emulation
Test Teardown       Run Keywords    Test Teardown    AND    Forget Device
Resource            ${RENODEKEYWORDS}
Resource            ${CURDIR}/monitor.resource


*** Keywords ***
Region Is As It Was
    [Documentation]    Whether the region that the payload declared holds what it held then.
    ${same}=    Set Variable    ${True}
    FOR    ${address}    IN    @{REGION}
        ${word}=    Word    ${address}
        ${same}=    Evaluate    $same and $word == 0x1111111111111111
    END
    RETURN    ${same}

*** Test Cases ***
HW-T16 Rollback Restores The Declared Region
    Start A Device    duration=10000
    Obtain Lease
    Gate Is Open
    Run For    1
    ${same}=    Region Is As It Was
    Should Not Be True    ${same}    the payload changed nothing
    Gate Closes    12
    Failsafe Rises
    Run For    1
    ${same}=    Region Is As It Was
    Should Be True    ${same}    it was not put back
    Rollback Must Be Done

HW-T17 Containment Holds
    Start A Device    duration=10000
    Obtain Lease
    Gate Is Open
    Payload Works
    Gate Closes    12
    Failsafe Rises
    Payload Stands Still    seconds=5
    Gate Is Closed
    Status Is    contained    True

HW-T18 The Safe State Is Reached Within Ten Milliseconds
    Start A Device    duration=10000
    Obtain Lease
    Gate Is Open
    Gate Closes    12
    Failsafe Rises
    Run For    0.5
    Expiry Must Be Seen Within    10
    Payload Must Stop Within    10
